//! Random requests from several clients at once, with orderly and disorderly restarts between:
//! after each, the drive knows exactly what the model does.

use std::rc::Rc;

use basalt_engine::sim::{Prng, check_seeds};
use futures_util::future::join_all;

use crate::client::{Client, EVERYTHING, check_payload};
use crate::model::Model;
use crate::support::{SimDrive, digest, formatted_disk, orphans, with_drive};

/// What all clients together know.
async fn check_all(drive: &Rc<SimDrive>, clients: &[Client]) {
    let mut expected_orphans = Vec::new();
    for client in clients {
        check_model(drive, &client.model).await;
        expected_orphans.extend(client.model.orphans());
    }
    expected_orphans.sort();
    assert_eq!(orphans(drive).await, expected_orphans);
}

async fn check_model(drive: &Rc<SimDrive>, model: &Model) {
    for key in model.keys.keys() {
        assert_eq!(digest(drive, key).await, model.digest(key), "{key:?}");
    }
    for (payload, (_, shape)) in &model.held {
        check_payload(drive, *payload, *shape).await;
    }
}

#[test]
fn the_drive_knows_what_the_model_knows() {
    check_seeds("the_drive_knows_what_the_model_knows", 60, |seed| {
        let disk = formatted_disk(seed);
        let mut clients: Vec<Client> =
            (0..3).map(|number| Client::new(number, seed, EVERYTHING, Rc::new(|| 0))).collect();
        let mut prng = Prng::new(seed);
        for restart in 0..8 {
            let (steps, orderly) = (prng.below(60), prng.coin());
            clients = with_drive(&disk, seed << 8 | restart, move |drive, _| async move {
                check_all(&drive, &clients).await;
                let acting = clients.into_iter().map(|mut client| {
                    let drive = Rc::clone(&drive);
                    async move {
                        for _ in 0..steps {
                            client.act(&drive).await;
                        }
                        client
                    }
                });
                let clients = join_all(acting).await;
                check_all(&drive, &clients).await;
                if orderly {
                    drive.close().await.expect("the disk is well");
                } else {
                    // What needs no answer becomes durable with a change that does.
                    drive.checkpoint().await.expect("the disk is well");
                }
                clients
            });
        }
    });
}
