//! The loop of the tables' thread.

use hotpair_core::pair::fact::Fact;
use hotpair_link::redo::RedoEvent;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hands::Hands;
use super::{Order, Submitted};
use crate::boot_clock;

/// Submissions taken in one turn: one write and one frame for all of them. Not more, so that the peer
/// has something to do while the next ones are taken.
const TURN_MAX: usize = 256;

/// What the thread listens to, and whom it tells.
pub(crate) struct Queues {
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) events: mpsc::Receiver<RedoEvent>,
    pub(crate) submissions: mpsc::Receiver<Submitted>,
    pub(crate) facts: mpsc::Sender<Fact>,
}

/// Runs until the control thread is gone.
pub(super) fn run(hands: Hands, queues: Queues) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without IO needs nothing");
    runtime.block_on(turn(hands, queues));
}

async fn turn(mut hands: Hands, mut queues: Queues) {
    let mut taken = Vec::with_capacity(TURN_MAX);
    hands.tell_opened();
    loop {
        for fact in hands.take_facts() {
            if queues.facts.send(fact).await.is_err() {
                return;
            }
        }
        let wake = Instant::now()
            + std::time::Duration::from_millis(hands.deadline().ms_since(boot_clock::now()));
        tokio::select! {
            biased;
            order = queues.orders.recv() => match order {
                Some(order) => hands.take_order(&order),
                None => return hands.end(),
            },
            Some(event) = queues.events.recv(), if hands.listens() => {
                hands.take_event(event);
                // What came meanwhile is taken in one turn.
                while hands.listens()
                    && let Ok(event) = queues.events.try_recv()
                {
                    hands.take_event(event);
                }
            }
            count = queues.submissions.recv_many(&mut taken, TURN_MAX) => {
                if count > 0 {
                    hands.take_submissions(taken.drain(..));
                }
            }
            () = tokio::time::sleep_until(wake) => {}
        }
        hands.take_time();
    }
}
