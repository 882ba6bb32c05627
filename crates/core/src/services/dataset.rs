//! Datasets: to be written.
