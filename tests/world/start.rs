//! How a simulated node starts, as docs/cluster.md tells it: it looks at its own drives, asks the other
//! nodes over the links what stands at their seats, and waits, forms the deployment, or goes on. What is
//! decided is [`formation`]'s, and what a node lets the founder do [`founding`](basalt_server::node::founding)'s.

use std::rc::Rc;
use std::time::Duration;

use basalt_engine::seam::{Clock, Random, Spawn};
use basalt_engine::units::{DeploymentId, DriveIndex, SetIndex};
use basalt_net::node::NodeIndex;
use basalt_server::node::formation::{self, Decision, Found, Plan, Refusal, Step};
use basalt_server::node::founding::{Declined, Ticket};
use basalt_server::node::host::{Bay, Host};
use futures_channel::oneshot;
use futures_util::future::{Either, join_all, select};

use super::fleet::Process;
use super::mailbox::SimHost;
use super::network::Delays;
use super::node::Machine;
use super::place::SimBay;

/// A node asks again after this.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// A node that does not answer within this has not answered.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What one node tells of its seats.
type Told = Vec<(SetIndex, DriveIndex, Found)>;

/// A node that starts.
pub struct Starting {
    pub machine: Machine,
    pub here: usize,
    pub process: Rc<Process>,
}

/// What a node is asked, or told to do.
#[derive(Clone)]
enum Order {
    Tell { asker: NodeIndex, ticket: Ticket },
    Format { ticket: Ticket, plan: Rc<Plan> },
    Mark { ticket: Ticket, deployment: DeploymentId },
}

impl Starting {
    /// The plan by which the node opens its drives.
    pub async fn plan(&self) -> Result<Plan, Refusal> {
        let group = &self.process.group;
        loop {
            let ticket = group.random_u128();
            match self.decide(ticket).await? {
                Decision::Start(plan) => {
                    if self.process.ground.borrow_mut().close().is_ok() {
                        return Ok(plan);
                    }
                }
                Decision::Form(plan) => {
                    match self.form(ticket, Rc::new(plan)).await {
                        // Now to see what has become of it.
                        Ok(()) => continue,
                        Err(declined) => tracing::info!(%declined, "not formed yet"),
                    }
                }
                Decision::Wait(waiting) => tracing::info!(node = self.here, "waits: {waiting}"),
            }
            group.sleep(ASK_INTERVAL).await;
        }
    }

    async fn decide(&self, ticket: Ticket) -> Result<Decision, Refusal> {
        let asker = NodeIndex(self.here as u16);
        let told = self.order_all(&Order::Tell { asker, ticket }).await;
        let (machine, seats) = (&self.machine, self.machine.wires.fleet.seats);
        let unreached = |drives: &Vec<_>| vec![Found::Unreached; drives.len()];
        let mut found: Vec<Vec<Found>> = machine.places.iter().map(unreached).collect();
        for (set, position, seen) in told.into_iter().flatten().flatten() {
            let seen = match &machine.wires.tamper {
                Some(tamper) => tamper.found(seen),
                None => seen,
            };
            found[usize::from(set.0)][usize::from(position.0)] = seen;
        }
        let sets = (0..machine.places.len()).map(|set| SetIndex(set as u16));
        let nodes: Vec<_> = sets.map(|set| seats.of_set(set)).collect();
        formation::decide(&found, &nodes, asker, || self.process.group.random_u128())
    }

    async fn form(&self, ticket: Ticket, plan: Rc<Plan>) -> Result<(), Declined> {
        let deployment = plan.deployment;
        for order in [Order::Format { ticket, plan }, Order::Mark { ticket, deployment }] {
            for obeyed in self.order_all(&order).await {
                obeyed?;
            }
        }
        Ok(())
    }

    /// Has every node carry out an order, this one as well. One that cannot be reached is busy with
    /// something else.
    async fn order_all(&self, order: &Order) -> Vec<Result<Told, Declined>> {
        let nodes = 0..self.machine.wires.fleet.seats.nodes;
        join_all(nodes.map(|node| self.order(node, order.clone()))).await
    }

    async fn order(&self, node: usize, order: Order) -> Result<Told, Declined> {
        if node == self.here {
            return carry_out(&self.machine, node, &self.process, order).await;
        }
        let (sender, receiver) = oneshot::channel();
        let (machine, fleet) = (self.machine.clone(), &self.machine.wires.fleet);
        let delays = Delays { there: Duration::ZERO, back: Duration::ZERO };
        let called = fleet.network.call(
            (self.here, node),
            delays,
            move |answer| {
                let process = machine.wires.fleet.process(node).expect("a link leads to it");
                process.group.clone().spawn(async move {
                    answer(carry_out(&machine, node, &process, order).await);
                });
            },
            move |told| {
                // Nobody may wait any more.
                let _ = sender.send(told);
            },
        );
        let limit = std::pin::pin!(self.process.group.sleep(ANSWER_MAX));
        match called {
            Err(_) => Err(Declined::Busy),
            Ok(()) => match select(receiver, limit).await {
                Either::Left((Ok(told), _)) => told,
                Either::Left((Err(_), _)) | Either::Right(_) => Err(Declined::Busy),
            },
        }
    }
}

/// What a node does when an order comes to its process.
async fn carry_out(
    machine: &Machine,
    node: usize,
    process: &Rc<Process>,
    order: Order,
) -> Result<Told, Declined> {
    let ground = &process.ground;
    match order {
        Order::Tell { asker, ticket } => {
            ground.borrow_mut().question(asker, ticket)?;
            Ok(look(machine, node, process).await)
        }
        Order::Format { ticket, plan } => {
            let told = look(machine, node, process).await;
            let found: Vec<Found> = told.into_iter().map(|(_, _, found)| found).collect();
            ground.borrow_mut().format(ticket, &found)?;
            let mut all = true;
            for (set, position) in machine.seats_of(node) {
                let step = &plan.steps[usize::from(set.0)][usize::from(position.0)];
                let Step::Found(drive) = step else { panic!("all are founded, not {step:?}") };
                let host = host(machine, plan.deployment, process, set, position);
                let map = plan.maps[usize::from(set.0)].clone();
                all &= host.found(*drive, map).await.is_ok();
            }
            ground.borrow_mut().formatted(ticket, all);
            if all { Ok(Vec::new()) } else { Err(Declined::NotBlank) }
        }
        Order::Mark { ticket, deployment } => {
            ground.borrow_mut().mark(ticket)?;
            for (set, position) in machine.seats_of(node) {
                let host = host(machine, deployment, process, set, position);
                // One that cannot be marked now is marked when it is opened.
                if host.open().await.is_ok() {
                    host.close().await;
                }
            }
            ground.borrow_mut().marked(ticket);
            Ok(Vec::new())
        }
    }
}

/// What stands at the seats of this node.
async fn look(machine: &Machine, node: usize, process: &Rc<Process>) -> Told {
    let mut told = Vec::new();
    for (set, position) in machine.seats_of(node) {
        let host = process.hosts.get().and_then(|hosts| hosts.get(&(set, position)));
        let found = match host {
            Some((_, host)) => host.found_here().await,
            None => {
                let place = machine.place(set, position).clone();
                SimBay::new(place, process.group.clone()).look().await
            }
        };
        told.push((set, position, found));
    }
    told
}

fn host(
    machine: &Machine,
    deployment: DeploymentId,
    process: &Rc<Process>,
    set: SetIndex,
    position: DriveIndex,
) -> Rc<SimHost> {
    let group = process.group.clone();
    let bay = SimBay::new(machine.place(set, position).clone(), group.clone());
    Host::new(bay, group, deployment, set, position, machine.sizes)
}
