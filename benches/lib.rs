//! Benchmarks of single parts live in the bench targets beside this file.
