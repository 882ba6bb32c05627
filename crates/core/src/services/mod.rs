//! What is offered: functions, their error numbers, datasets, sessions and their users, servers of
//! other people.

pub mod dataset;
pub mod governed;
pub mod session;
pub mod users;
