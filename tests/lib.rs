//! Whole-system tests live in the test targets beside this file; what they share is here.

pub mod world;
