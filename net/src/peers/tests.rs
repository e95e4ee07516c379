//! Two nodes over simulated connections: bytes come in pieces and late, connections are cut, stall and
//! flip bits. Whatever happens, an ask is answered at most once by each drive, with what the drive said,
//! and nobody waits for ever.

use std::cell::Cell;
use std::io::IoSlice;

use basalt_engine::buffer::{Buffer, SharedBuffer};
use basalt_engine::request::RunRead;
use basalt_engine::seam::{Clock, Spawn};
use basalt_engine::sim::{SimRuntime, Simulation, check_seeds};
use basalt_engine::units::{BlockCount, DeploymentId, PayloadId};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use futures_util::task::AtomicWaker;

use super::*;
use crate::mailbox::Replies;
use crate::service::{self, Service};
use crate::wire::handshake::Secret;
use crate::wire::message::Asked;

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    bytes: RefCell<VecDeque<u8>>,
    reader: AtomicWaker,
    ended: Cell<bool>,
}

/// What is wrong with the network, and what it was asked to do.
struct Network {
    runtime: SimRuntime,
    /// Chances in a million, for each piece that is sent.
    cut_ppm: Cell<u32>,
    flip_ppm: Cell<u32>,
    stall_ppm: Cell<u32>,
    refuses: Cell<bool>,
    dialed: Cell<u32>,
}

struct SimStream {
    network: Rc<Network>,
    incoming: Rc<Pipe>,
    outgoing: Rc<Pipe>,
    stalled: Cell<bool>,
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.end();
    }
}

impl SimStream {
    fn pair(network: &Rc<Network>) -> (Self, Self) {
        let (one, two) = (Rc::new(Pipe::default()), Rc::new(Pipe::default()));
        let end = |incoming: &Rc<Pipe>, outgoing: &Rc<Pipe>| Self {
            network: network.clone(),
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            stalled: Cell::new(false),
        };
        (end(&one, &two), end(&two, &one))
    }

    fn end(&self) {
        for pipe in [&self.incoming, &self.outgoing] {
            pipe.ended.set(true);
            pipe.reader.wake();
        }
    }
}

impl Stream for SimStream {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|context| {
            self.incoming.reader.register(context.waker());
            let mut bytes = self.incoming.bytes.borrow_mut();
            if bytes.is_empty() {
                return match self.incoming.ended.get() {
                    true => std::task::Poll::Ready(Ok(0)),
                    false => std::task::Poll::Pending,
                };
            }
            let most = bytes.len().min(buffer.len());
            let count = 1 + self.network.runtime.draw(|prng| prng.index(most));
            for (to, from) in buffer.iter_mut().zip(bytes.drain(..count)) {
                *to = from;
            }
            std::task::Poll::Ready(Ok(count))
        })
        .await
    }

    async fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let runtime = &self.network.runtime;
        runtime.sleep(runtime.delay(Duration::from_micros(10)..Duration::from_millis(2))).await;
        if runtime.chance(self.network.cut_ppm.get()) {
            self.end();
        }
        if self.outgoing.ended.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if runtime.chance(self.network.stall_ppm.get()) {
            self.stalled.set(true);
        }
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.truncate(1 + runtime.draw(|prng| prng.index(bytes.len())));
        let count = bytes.len();
        if runtime.chance(self.network.flip_ppm.get()) {
            let bit = runtime.draw(|prng| prng.index(count * 8));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        // A stalled connection takes what it is given and loses it.
        if !self.stalled.get() {
            self.outgoing.bytes.borrow_mut().extend(bytes);
            self.outgoing.reader.wake();
        }
        Ok(count)
    }
}

/// Connects to the one other node.
struct SimDial {
    network: Rc<Network>,
    server: SimRuntime,
    service: Rc<Drives>,
    theirs: Identity,
}

impl Dial for SimDial {
    type Stream = SimStream;

    async fn dial(&self, _to: NodeIndex) -> io::Result<SimStream> {
        let runtime = &self.network.runtime;
        runtime.sleep(Duration::from_micros(50)).await;
        if self.network.refuses.get() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.network.dialed.set(self.network.dialed.get() + 1);
        let (here, there) = SimStream::pair(&self.network);
        let identity = self.theirs.clone();
        let serving =
            service::serve(self.server.clone(), there, identity, CREDIT, self.service.clone(), ());
        self.server.spawn(serving.map(|_| ()));
        Ok(here)
    }

    fn name(&self, of: NodeIndex) -> String {
        format!("node {}", of.0)
    }
}

const CREDIT: u32 = 100 * 1024;

/// Drives that answer what they are asked after a while, and count what is open.
struct Drives {
    runtime: SimRuntime,
    open_bytes: Rc<Cell<u64>>,
    most_bytes: Rc<Cell<u64>>,
}

impl Service for Drives {
    fn ask(&self, asked: Asked) -> Replies {
        let (sender, replies) = Replies::expect(asked.requests.len());
        for (drive, request) in asked.requests {
            let sender = sender.clone();
            let pause = self.runtime.delay(Duration::ZERO..Duration::from_millis(20));
            let (open, cost) = (self.open_bytes.clone(), cost(&request));
            open.set(open.get() + cost);
            self.most_bytes.set(self.most_bytes.get().max(open.get()));
            self.runtime.schedule(pause, move || {
                open.set(open.get() - cost);
                sender.send(drive, answer(request));
            });
        }
        replies
    }

    fn call(&self, from: NodeIndex, call: Call) -> LocalBoxFuture<'static, CallAnswer> {
        assert_eq!(from, NodeIndex(0));
        let said = format!("{call:?}");
        async move { CallAnswer::Refused(said) }.boxed_local()
    }
}

/// What tells the asker that this very request arrived whole.
fn answer(request: Request) -> Reply {
    match request {
        Request::StageWrite { payload, run, buffer } => {
            assert!(buffer.iter().all(|byte| *byte == payload.0 as u8), "bytes of its own");
            Reply::Holds(vec![true; run as usize])
        }
        Request::ReadRun { payload, blocks, .. } => {
            let mut buffer = Buffer::zeroed(BlockCount(blocks));
            buffer.fill(payload.0 as u8);
            let checksums = vec![payload.0 as u64; blocks as usize].into();
            Reply::Run(RunRead { buffer, data_start_blocks: 0, checksums })
        }
        other => panic!("nobody asks {other:?}"),
    }
}

fn identity(this: u16) -> Identity {
    Identity {
        this: NodeIndex(this),
        topology: [1; 32],
        deployment: Some(DeploymentId(1)),
        secret: Secret::new([2; 32]),
    }
}

struct World {
    network: Rc<Network>,
    peers: Peers<SimRuntime, SimDial>,
    client: SimRuntime,
    /// The most that was open at the drives at a time.
    most_bytes: Rc<Cell<u64>>,
}

fn world(simulation: &Simulation, theirs: Identity) -> World {
    let (client, server) = (simulation.group(), simulation.group());
    let network = Rc::new(Network {
        runtime: client.clone(),
        cut_ppm: Cell::new(0),
        flip_ppm: Cell::new(0),
        stall_ppm: Cell::new(0),
        refuses: Cell::new(false),
        dialed: Cell::new(0),
    });
    let most_bytes = Rc::new(Cell::new(0));
    let service = Drives {
        runtime: server.clone(),
        open_bytes: Rc::default(),
        most_bytes: most_bytes.clone(),
    };
    let dial = SimDial { network: network.clone(), server, service: Rc::new(service), theirs };
    let peers = Peers::new(client.clone(), dial, identity(0), 2, false);
    peers.connect_all(&[Lane::Steps, Lane::Payload]);
    World { network, peers, client, most_bytes }
}

impl World {
    /// Asks three drives something and checks what comes. Says how many answered.
    async fn ask(&self, number: u8) -> usize {
        let payload = PayloadId(u128::from(number));
        let mut buffer = Buffer::zeroed(BlockCount(1 + u64::from(number % 5)));
        buffer.fill(number);
        let buffer = SharedBuffer::from(buffer);
        let requests = vec![
            (DriveIndex(0), Request::StageWrite { payload, run: 3, buffer }),
            (DriveIndex(1), Request::ReadRun { payload, first_block: 0, blocks: 7 }),
            (DriveIndex(5), Request::ReadRun { payload, first_block: 0, blocks: 1 }),
        ];
        let (sender, mut replies) = Replies::expect(requests.len());
        self.peers.ask(NodeIndex(1), SetIndex(0), requests, sender);
        let mut answered = Vec::new();
        let mut done = 0;
        while let Some((drive, reply)) = replies.next().await {
            assert!(!answered.contains(&drive), "a second answer");
            answered.push(drive);
            match reply {
                Reply::Failed(Error::Unavailable { .. }) => continue,
                Reply::Holds(held) => assert_eq!((drive.0, held.len()), (0, 3)),
                Reply::Run(run) => {
                    let blocks = if drive.0 == 1 { 7 } else { 1 };
                    assert_eq!(run.checksums.len(), blocks);
                    assert!(run.buffer.iter().all(|byte| *byte == number));
                }
                other => panic!("nobody said {other:?}"),
            }
            done += 1;
        }
        done
    }
}

#[test]
fn every_ask_ends_and_a_sound_network_loses_nothing() {
    check_seeds("-p basalt-net every_ask_ends", 300, |seed| {
        let simulation = Simulation::new(seed);
        let world = Rc::new(world(&simulation, identity(1)));
        let client = world.client.clone();
        let (ended, asked) = (Rc::new(Cell::new(0)), 60);
        let (network, trouble) = (world.network.clone(), seed % 4);
        simulation.block_on(&client.clone(), {
            let (world, ended) = (world.clone(), ended.clone());
            async move {
                world.client.sleep(Duration::from_millis(200)).await;
                assert!(world.peers.is_connected(NodeIndex(1)));
                network.cut_ppm.set(if trouble == 1 { 10_000 } else { 0 });
                network.flip_ppm.set(if trouble == 2 { 10_000 } else { 0 });
                network.stall_ppm.set(if trouble == 3 { 3_000 } else { 0 });
                for number in 0..asked {
                    let (world, ended) = (world.clone(), ended.clone());
                    client.spawn(async move {
                        let done = world.ask(number).await;
                        assert!(trouble != 0 || done == 3, "lost in a sound network");
                        ended.set(ended.get() + 1);
                    });
                    let pause = client.delay(Duration::ZERO..Duration::from_millis(60));
                    client.sleep(pause).await;
                }
                client.sleep(Duration::from_secs(10)).await;
                for ppm in [&network.cut_ppm, &network.flip_ppm, &network.stall_ppm] {
                    ppm.set(0);
                }
                client.sleep(Duration::from_secs(10)).await;
                assert_eq!(ended.get(), asked, "somebody waits for ever");
                assert_eq!(world.ask(7).await, 3, "nothing is wrong any more");
                if trouble == 0 {
                    assert_eq!(world.network.dialed.get(), 2, "one connection for each lane");
                    assert!(world.most_bytes.get() <= u64::from(CREDIT), "beyond its credit");
                }
            }
        });
    });
}

#[test]
fn without_a_connection_it_was_not_done() {
    let simulation = Simulation::new(1);
    let world = Rc::new(world(&simulation, identity(1)));
    world.network.refuses.set(true);
    simulation.block_on(&world.client.clone(), async move {
        world.client.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.ask(1).await, 0);
        assert_eq!(world.peers.call(NodeIndex(1), &Call::Identify { ticket: 4 }).await, None);
        assert_eq!(world.peers.trouble(NodeIndex(1)).as_deref(), Some("connection refused"));
        world.network.refuses.set(false);
        world.client.sleep(Duration::from_secs(2)).await;
        assert_eq!(world.ask(1).await, 3);
        let answer = world.peers.call(NodeIndex(1), &Call::Identify { ticket: 4 }).await;
        assert_eq!(answer, Some(CallAnswer::Refused("Identify { ticket: 4 }".to_owned())));
        assert_eq!(world.peers.trouble(NodeIndex(1)), None);
    });
}

#[test]
fn nodes_that_do_not_fit_say_so_and_never_connect() {
    let other_secret = Identity { secret: Secret::new([9; 32]), ..identity(1) };
    let other_topology = Identity { topology: [9; 32], ..identity(1) };
    for (theirs, expected) in [(other_secret, "password"), (other_topology, "arguments")] {
        let simulation = Simulation::new(1);
        let world = world(&simulation, theirs);
        simulation.block_on(&world.client.clone(), async move {
            world.client.sleep(Duration::from_secs(3)).await;
            let trouble = world.peers.trouble(NodeIndex(1)).expect("it is told");
            assert!(trouble.contains(expected), "{trouble}");
            assert_eq!(world.ask(1).await, 0);
        });
    }
}

#[test]
fn nobody_waits_long_for_a_node_that_hangs() {
    let simulation = Simulation::new(5);
    let world = Rc::new(world(&simulation, identity(1)));
    simulation.block_on(&world.client.clone(), async move {
        let clock = world.client.clone();
        clock.sleep(Duration::from_secs(1)).await;
        world.network.stall_ppm.set(1_000_000);
        let asked = clock.now();
        assert_eq!(world.ask(1).await, 0);
        let waited = clock.now().since(asked);
        assert!(waited < SUSPECT_AFTER + 2 * SUSPICION_LOOK, "{waited:?}");
        let asked = clock.now();
        assert_eq!(world.ask(2).await, 0);
        assert_eq!(clock.now(), asked, "it is suspect");
    });
}
