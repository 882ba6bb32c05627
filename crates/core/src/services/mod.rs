//! What is offered: functions, their error numbers, datasets.

pub mod dataset;
