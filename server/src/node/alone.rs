//! How a node that has all drives starts: examine every place, and form the deployment if this is the
//! first time.

use basalt_engine::runtime::GlommioRuntime;
use basalt_engine::seam::Random;
use futures_util::future::{join_all, try_join_all};

use super::bay::DirectoryBay;
use super::formation::{self, Found, Plan, Step};
use super::host::{Bay, Host};
use super::{NodeConfig, Seat, StartFailure, host};

/// The plan by which the node opens its drives, formed if need be.
pub(super) async fn form(
    runtime: &GlommioRuntime,
    config: &NodeConfig,
) -> Result<Plan, StartFailure> {
    let mut found = Vec::new();
    for seats in &config.sets {
        let looks = seats.iter().map(|seat| async move {
            match seat {
                Seat::Here(drive) => DirectoryBay::new(runtime.clone(), drive.clone()).look().await,
                Seat::There(_) => unreachable!("a node alone has every seat"),
            }
        });
        found.push(join_all(looks).await);
    }
    let plan = formation::plan(&found, || runtime.random_u128())?;
    report_refused(config, &found);
    if plan.founding {
        found_drives(runtime, config, &plan).await?;
    }
    Ok(plan)
}

fn report_refused(config: &NodeConfig, found: &[Vec<Found>]) {
    for (seats, found) in config.sets.iter().zip(found) {
        for (seat, found) in seats.iter().zip(found) {
            if let (Seat::Here(drive), Found::Unusable(reason)) = (seat, found) {
                tracing::warn!(drive = %drive.path.display(), reason, "drive stays down");
            }
        }
    }
}

/// Formats every drive, and only then marks them as formed.
async fn found_drives(
    runtime: &GlommioRuntime,
    config: &NodeConfig,
    plan: &Plan,
) -> Result<(), StartFailure> {
    let mut founded = Vec::new();
    for (set, steps) in plan.steps.iter().enumerate() {
        for (position, step) in steps.iter().enumerate() {
            let Step::Found(drive) = step else { continue };
            let Some(host) = host(runtime, config, plan, set, position) else { continue };
            founded.push((host, *drive, plan.maps[set].clone()));
        }
    }
    let failure = |host: &Host<DirectoryBay, GlommioRuntime>, error| {
        let drive = host.name();
        StartFailure::Drive { drive, error }
    };
    let format = founded.iter().map(|(host, drive, map)| async move {
        host.found(*drive, map.clone()).await.map_err(|error| failure(host, error))
    });
    try_join_all(format).await?;
    let mark = founded.iter().map(|(host, _, _)| async move {
        let marked = host.open().await.map_err(|error| failure(host, error));
        host.close().await;
        marked
    });
    try_join_all(mark).await?;
    tracing::info!(deployment = %plan.deployment, drives = founded.len(), "deployment formed");
    Ok(())
}
