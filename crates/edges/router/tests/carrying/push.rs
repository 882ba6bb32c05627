//! Push streams through the router: they begin at whoever serves, and end when he does not any more.

use crate::fake::{Behaviour, LIMIT, Stage, settings};
use hotpair_http::{ClientError, Events, Limits};

async fn follow(stage: &Stage) -> Result<Events, ClientError> {
    let headers = [("authorization", "Bearer token"), ("last-event-id", "41")];
    Events::open(&format!("http://{}/v1/push", stage.router), &headers, LIMIT).await
}

#[tokio::test]
async fn a_stream_follows_the_master_and_ends_with_its_mastership() {
    let stage = Stage::start(settings(), Limits::client()).await;
    for (number, epoch) in [(1, 1), (2, 2)] {
        let mut events = follow(&stage).await.unwrap();
        let first = events.next(LIMIT).await.unwrap().unwrap();
        assert_eq!((first.name.as_str(), first.data), ("role", format!("{epoch} token 41")));
        for _ in 0..3 {
            assert_eq!(events.next(LIMIT).await.unwrap().unwrap().name, "turn");
        }
        assert_eq!(stage.ask(number).await.0, 0, "other requests pass beside it");
        // The old master says nothing and goes on streaming: what is served elsewhere ends it.
        let (node, next) = if epoch == 1 { (&stage.b, epoch + 1) } else { (&stage.a, epoch + 1) };
        node.become_role("master", next);
        while events.next(LIMIT).await.unwrap().is_some() {}
    }
}

#[tokio::test]
async fn a_refusal_instead_of_a_stream_is_passed_on_and_a_switch_is_waited_for() {
    let stage = Stage::start(settings(), Limits::client()).await;
    stage.a.behave(Behaviour::Refuse);
    stage.a.become_role("demoting", 1);
    let following = follow(&stage);
    let switching = async {
        stage.holds(1).await;
        stage.b.become_role("master", 2);
    };
    let (events, ()) = tokio::join!(following, switching);
    let first = events.unwrap().next(LIMIT).await.unwrap().unwrap();
    assert_eq!(first.data, "2 token 41");
    assert_eq!(stage.desk.look(|decider| decider.under_way()), 0, "a stream is no request");
}
