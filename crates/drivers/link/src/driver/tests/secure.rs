//! The link under TLS: who is let in, and what is said to whom who is not.

use std::fs;
use std::path::Path;

use hotpair_tls::testing::Authority;
use hotpair_tls::{Files, Identity as Certificate};

use super::*;

const PAIR: &str = "trade";

struct Keys {
    _folder: tempfile::TempDir,
    ours: Authority,
    foreign: Authority,
}

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ours = Authority::new(&folder.path().join("ours"));
        let foreign = Authority::new(&folder.path().join("foreign"));
        Self { _folder: folder, ours, foreign }
    }

    /// A node of our pair.
    fn good(&self, node: &str) -> LinkSecurity {
        LinkSecurity::new(&self.ours.identity(node, &[PAIR]), PAIR, false).unwrap()
    }

    /// The same, that speaks plain text to whoever does.
    fn changing(&self, node: &str) -> LinkSecurity {
        LinkSecurity::new(&self.ours.identity(node, &[PAIR]), PAIR, true).unwrap()
    }

    /// Signed by another authority for the same pair; trusts both.
    fn stranger(&self, folder: &Path) -> LinkSecurity {
        let files = self.foreign.issue("b", &[PAIR]);
        let both = [self.ours.file(), self.foreign.file()].map(|file| fs::read(file).unwrap());
        let authority = folder.join("both.pem");
        fs::write(&authority, both.concat()).unwrap();
        let files = Files { authority: Some(authority), ..files };
        LinkSecurity::new(&Certificate::load(&files).unwrap(), PAIR, false).unwrap()
    }

    /// Signed by our authority for another pair.
    fn cousin(&self) -> LinkSecurity {
        LinkSecurity::new(&self.ours.identity("x", &["risk"]), PAIR, false).unwrap()
    }
}

fn side(node: &str, security: Option<LinkSecurity>, peer: SocketAddr) -> Side {
    let me = identity(PAIR, node);
    let listener = LinkDriver::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, facts) = mpsc::channel(64);
    let settings = LinkSettings {
        peer: peer.to_string(),
        me: me.clone(),
        dial_timeout: Duration::from_secs(5),
        security,
        wall_clock: WallClock::system(),
    };
    let driver = LinkDriver::start(settings, listener, sender, mpsc::channel(1).0).unwrap();
    Side { driver, facts, me, address }
}

fn troubled(fact: &Fact) -> &str {
    match fact {
        Fact::LinkTroubled { what } => what,
        other => panic!("{other:?} where a trouble was to be told"),
    }
}

/// Dials in vain: what the dialler says, and what the door says if it says anything.
async fn turned_away(dialler: Option<LinkSecurity>, door: Option<LinkSecurity>) -> (String, Side) {
    let door = side("a", door, nowhere());
    let mut us = side("b", dialler, door.address);
    let trouble = us.dialled().await;
    let failed = us.news().await;
    assert_eq!(failed, Fact::DialFailed { how: DialFailure::Rejected });
    (troubled(&trouble).to_owned(), door)
}

#[tokio::test]
async fn both_sides_of_a_pair_meet_and_a_death_is_still_a_fin_and_three_refusals() {
    let keys = Keys::new();
    let peer = side("b", Some(keys.good("b")), nowhere());
    let address = peer.address;
    let mut us = side("a", Some(keys.good("a")), address);
    let peer = peer.answering();
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    assert_eq!(us.ping(1).await.identity.incarnation.node, NodeId::new("b"));
    peer.die().await;
    let ended = us.news().await;
    assert!(matches!(ended, Fact::LinkEnded { how: LinkEnd::Fin | LinkEnd::Reset }), "{ended:?}");
    for _ in 0..3 {
        assert_eq!(us.dialled().await, Fact::DialFailed { how: DialFailure::Refused });
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let keys = Keys::new();
    let folder = tempfile::tempdir().unwrap();
    // Refused by the door: the dialler trusts everybody.
    let stranger = keys.stranger(folder.path());
    let (said, mut door) = turned_away(Some(stranger.clone()), Some(keys.good("a"))).await;
    assert!(
        said.contains("our certificate is not signed by an authority that it trusts"),
        "{said}"
    );
    let heard = door.fact().await;
    assert!(
        troubled(&heard).contains("not signed by an authority that is trusted here"),
        "{heard:?}"
    );
    // Refused by the dialler.
    let (said, _door) = turned_away(Some(keys.good("a")), Some(stranger)).await;
    assert!(said.contains("not signed by an authority that is trusted here"), "{said}");
}

#[tokio::test]
async fn a_certificate_of_our_authority_for_another_pair_is_refused_on_both_sides() {
    let keys = Keys::new();
    let (said, mut door) = turned_away(Some(keys.cousin()), Some(keys.good("a"))).await;
    assert!(said.contains("your certificate does not name pair trade"), "{said}");
    let heard = door.fact().await;
    assert!(troubled(&heard).contains("does not name pair trade"), "{heard:?}");
    let (said, _door) = turned_away(Some(keys.good("a")), Some(keys.cousin())).await;
    assert!(said.contains("not for \"trade\" but for") && said.contains("risk"), "{said}");
}

#[tokio::test]
async fn plain_and_tls_tell_each_other_which_end_lacks_what() {
    let keys = Keys::new();
    let (said, mut door) = turned_away(None, Some(keys.good("a"))).await;
    assert!(said.contains("speaks TLS only") && said.contains("tls.authority"), "{said}");
    let heard = door.fact().await;
    assert!(troubled(&heard).contains("spoke plain text to listen.peer"), "{heard:?}");
    let (said, mut door) = turned_away(Some(keys.good("b")), None).await;
    assert!(said.contains("does not speak TLS and this node does"), "{said}");
    let heard = door.fact().await;
    assert!(troubled(&heard).contains("give this node tls.certificate"), "{heard:?}");
}

#[tokio::test]
async fn while_a_pair_changes_to_tls_both_are_spoken() {
    let keys = Keys::new();
    let plain = side("a", None, nowhere());
    let mut us = side("b", Some(keys.changing("b")), plain.address);
    let plain = plain.answering();
    assert!(troubled(&us.dialled().await).contains("does not speak TLS"));
    assert_eq!(us.news().await, Fact::DialFailed { how: DialFailure::Rejected });
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }), "in plain text now");
    drop(plain);
    let changing = side("b", Some(keys.changing("b")), nowhere());
    let mut plain = side("a", None, changing.address);
    let mut secure = side("a", Some(keys.good("a")), changing.address);
    let _changing = changing.answering();
    assert!(matches!(plain.dialled().await, Fact::LinkOpened { .. }));
    assert!(matches!(secure.dialled().await, Fact::LinkOpened { .. }));
}

/// The bytes that a dialler sent to a door, taken down on the way.
async fn captured(dialler: Option<LinkSecurity>, door: Option<LinkSecurity>) -> Vec<u8> {
    let peer = side("a", door, nowhere());
    let address = peer.address;
    let peer = peer.answering();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut us = side("b", dialler, listener.local_addr().unwrap());
    let tap = tokio::spawn(async move {
        let (inner, _) = listener.accept().await.unwrap();
        let outer = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut from, mut back) = inner.into_split();
        let (mut answers, mut to) = outer.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        let mut taken = Vec::new();
        let mut buffer = vec![0; 4_096];
        while let Ok(size @ 1..) = tokio::io::AsyncReadExt::read(&mut from, &mut buffer).await {
            taken.extend_from_slice(&buffer[..size]);
            tokio::io::AsyncWriteExt::write_all(&mut to, &buffer[..size]).await.unwrap();
        }
        taken
    });
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    us.ping(1).await;
    drop(us);
    drop(peer);
    tap.await.unwrap()
}

#[tokio::test]
async fn a_session_that_was_listened_to_is_of_no_use_to_whoever_plays_it_again() {
    let keys = Keys::new();
    let plain = captured(None, None).await;
    let sealed = captured(Some(keys.good("b")), Some(keys.good("a"))).await;
    let needle = b"statement";
    let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(holds(&plain) && !holds(&sealed));
    let mut door = side("a", Some(keys.good("a")), nowhere());
    for bytes in [plain, sealed] {
        let address = door.address;
        let ended = tokio::task::spawn_blocking(move || {
            let mut stream = StdStream::connect(address).unwrap();
            stream.set_read_timeout(Some(GENEROUS)).unwrap();
            let _ = stream.write_all(&bytes); // refused half-way
            let mut scrap = Vec::new();
            match stream.read_to_end(&mut scrap) {
                Ok(_) => true,
                Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            }
        });
        assert!(ended.await.unwrap(), "it is closed, not kept waiting");
        let heard = door.fact().await;
        assert!(!troubled(&heard).is_empty());
    }
    // Whoever belongs there is still let in, and nothing of what was played got that far.
    let mut us = side("b", Some(keys.good("b")), door.address);
    let mut door = door.answering();
    assert!(matches!(us.dialled().await, Fact::LinkOpened { .. }));
    let asked = door.fact().await;
    assert!(matches!(asked, Fact::PeerAsked { number: 0, .. }), "{asked:?}");
}
