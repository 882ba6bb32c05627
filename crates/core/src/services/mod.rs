//! What is offered: functions, their error numbers, datasets, sessions and their users, servers of
//! other people, heartbeats to the external investment system.

pub mod dataset;
pub mod governed;
pub mod session;
pub mod upstream;
pub mod users;
