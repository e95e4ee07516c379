//! One drive as its callers see it, on a simulated disk: against a model, across restarts, power
//! cuts at any point, and faults of the device.

mod client;
mod crash;
mod duties;
mod faults;
mod model;
mod random;
mod space;
mod support;
