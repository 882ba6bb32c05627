//! A whole router in this process, before two nodes that do what a test wants of them.

mod fake;
mod overload;
mod push;
