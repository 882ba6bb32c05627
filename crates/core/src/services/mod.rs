//! What is offered: functions, their error numbers, datasets, sessions and their users.

pub mod dataset;
pub mod session;
pub mod users;
