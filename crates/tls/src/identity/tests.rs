use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::Stream;
use crate::testing::Authority;

const LINK: &[&[u8]] = &[b"hotpair-link"];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn problems(files: &Files) -> String {
    let problems = Identity::load(files).expect_err("the files have a problem");
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Dials and accepts; both ends, or what each side says.
async fn meet(
    acceptor: &Acceptor,
    connector: &Connector,
) -> (io::Result<Stream>, io::Result<Stream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await?;
        stream.write_all(b"welcome").await?;
        Ok(stream)
    };
    let dialling = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect(&address.to_string(), stream).await?;
        // In TLS 1.3 a client learns only now whether it was accepted.
        let mut word = [0; 7];
        stream.read_exact(&mut word).await?;
        Ok(stream)
    };
    tokio::join!(accepting, dialling)
}

fn said(result: io::Result<Stream>) -> String {
    let error = result.expect_err("it is refused");
    crate::explain(&error).unwrap_or_else(|| error.to_string())
}

#[tokio::test]
async fn both_sides_meet_and_know_each_other() {
    let folder = folder();
    let authority = Authority::new(folder.path());
    let a = authority.identity("a", &["127.0.0.1", "trade"]);
    let b = authority.identity("b", &["10.9.9.9", "trade"]);
    assert!(a.warnings().is_empty(), "{:?}", a.warnings());
    assert!(a.is_named("127.0.0.1") && a.is_named("trade") && !a.is_named("10.9.9.9"));
    assert_eq!(a.names(), ["127.0.0.1", "trade"]);
    assert!(Identity::nobody().names().is_empty());
    let (server, client) = (a.mutual_server(LINK).unwrap(), b.client(LINK).unwrap());
    let (accepted, dialled) = meet(&server, &client).await;
    let (accepted, dialled) = (accepted.unwrap(), dialled.unwrap());
    assert!(accepted.peer_is_named("trade") && accepted.peer_is_named("10.9.9.9"));
    assert!(!accepted.peer_is_named("other") && dialled.peer_is_named("127.0.0.1"));
    assert_eq!(accepted.protocol(), Some(LINK[0]));

    // Dialled by an address that is not in it; then by a name that is.
    let (server, client) = (b.mutual_server(LINK).unwrap(), a.client(LINK).unwrap());
    let (_, dialled) = meet(&server, &client).await;
    let why = said(dialled);
    assert!(why.ends_with("not for \"127.0.0.1\" but for 10.9.9.9, trade"), "{why}");
    let (accepted, dialled) = meet(&server, &client.clone().named("trade").unwrap()).await;
    assert!(accepted.is_ok() && dialled.is_ok());
    assert!(client.named("no name").is_err());
}

#[tokio::test]
async fn strangers_are_refused_by_either_side_with_a_reason() {
    let (here, there) = (folder(), folder());
    let (ours, theirs) = (Authority::new(here.path()), Authority::new(there.path()));
    let node = ours.identity("a", &["127.0.0.1"]);
    let stranger = theirs.identity("x", &["127.0.0.1"]);

    // A foreign server.
    let (server, client) = (stranger.server(&[]).unwrap(), node.client(&[]).unwrap());
    let (accepted, dialled) = meet(&server, &client).await;
    assert!(said(dialled).contains("not signed by an authority"));
    assert!(said(accepted).contains("refuses"));

    // A foreign certificate shown to our server: its holder trusts us, we do not trust him.
    let mixed = Files { authority: Some(ours.file()), ..theirs.issue("y", &["127.0.0.1"]) };
    let mixed = Identity::load(&mixed).unwrap();
    assert!(mixed.warnings()[0].contains("not signed by it"), "{:?}", mixed.warnings());
    let (server, client) = (node.mutual_server(LINK).unwrap(), mixed.client(LINK).unwrap());
    let (accepted, dialled) = meet(&server, &client).await;
    assert!(said(accepted).contains("not signed by an authority"));
    assert!(said(dialled).contains("it refuses"));

    // No certificate at all; which a server of clients does not ask for.
    let nobody = ours.trusting();
    let (accepted, dialled) = meet(&server, &nobody.client(LINK).unwrap()).await;
    assert!(said(accepted).contains("showed no certificate"));
    assert!(said(dialled).contains("we have shown none"));
    let (accepted, dialled) = meet(&node.server(&[]).unwrap(), &nobody.client(&[]).unwrap()).await;
    assert!(accepted.is_ok() && dialled.is_ok());
}

#[tokio::test]
async fn two_authorities_in_one_file_are_both_trusted() {
    let (here, there) = (folder(), folder());
    let (old, new) = (Authority::new(here.path()), Authority::new(there.path()));
    let both = here.path().join("both.pem");
    let text = [fs::read(old.file()).unwrap(), fs::read(new.file()).unwrap()].concat();
    fs::write(&both, text).unwrap();
    let trusting = |mut files: Files| {
        files.authority = Some(both.clone());
        Identity::load(&files).unwrap()
    };
    let (a, b) =
        (trusting(old.issue("a", &["127.0.0.1"])), trusting(new.issue("b", &["127.0.0.1"])));
    for (server, client) in [(&a, &b), (&b, &a)] {
        let (server, client) = (server.mutual_server(LINK).unwrap(), client.client(LINK).unwrap());
        let (accepted, dialled) = meet(&server, &client).await;
        assert!(accepted.is_ok() && dialled.is_ok());
    }
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told_so() {
    let folder = folder();
    let node = Authority::new(folder.path()).identity("a", &["127.0.0.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let plain = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let client = node.client(&[]).unwrap();
    let dialling = async {
        let stream = TcpStream::connect(&address).await.unwrap();
        client.connect(&address, stream).await
    };
    let (_kept, dialled) = tokio::join!(plain, dialling);
    assert_eq!(dialled.unwrap_err().to_string(), "TLS: it does not speak TLS");
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_key_and_name() {
    let folder = folder();
    let authority = Authority::new(folder.path());
    let good = authority.issue("a", &["127.0.0.1"]);
    let other = authority.issue("b", &["127.0.0.1"]);
    let missing = Some(folder.path().join("missing.pem"));

    let said = problems(&Files { certificate: missing.clone(), ..good.clone() });
    assert!(said.contains("tls.certificate = ") && said.contains("missing.pem"), "{said}");
    let said = problems(&Files { certificate: good.key.clone(), ..good.clone() });
    assert!(said.contains("a.key") && said.contains("no certificate (PEM)"), "{said}");
    let said = problems(&Files { key: good.certificate.clone(), ..good.clone() });
    assert!(said.contains("tls.key = ") && said.contains("no private key (PEM)"), "{said}");
    let said = problems(&Files { key: other.key.clone(), ..good.clone() });
    assert!(said.contains("b.key") && said.contains("not the key of tls.certificate"), "{said}");
    let said = problems(&Files { key: None, ..good.clone() });
    assert!(said.contains("tls.certificate is given and tls.key is not"), "{said}");
    let said = problems(&Files { certificate: None, ..good.clone() });
    assert!(said.contains("tls.key is given and tls.certificate is not"), "{said}");
    let said = problems(&Files { authority: good.key.clone(), key: missing, ..good.clone() });
    assert!(said.contains("tls.authority") && said.contains("missing.pem"), "both: {said}");

    let key = good.key.clone().unwrap();
    fs::write(&key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
    let said = problems(&good);
    assert!(said.contains("a.key"), "{said}");
    fs::write(&key, "").unwrap();
    assert!(problems(&good).contains("no private key (PEM)"));
    let cut = folder.path().join("cut.pem");
    fs::write(&cut, "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
    let said = problems(&Files { authority: Some(cut), ..Files::default() });
    assert!(said.contains("cut.pem") && said.contains("broken"), "{said}");
}

#[test]
fn an_expired_certificate_is_refused_and_one_that_will_soon_be_is_told() {
    let folder = folder();
    let files = Authority::new(folder.path()).issue("a", &["127.0.0.1"]);
    let identity = Identity::load(&files).unwrap();
    assert!(identity.warnings().is_empty());
    let expires = u64::try_from(identity.expires().unwrap()).unwrap();
    let at =
        |seconds| Identity::load_at(&files, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let soon = at(expires - 86_400).unwrap();
    assert!(soon.warnings()[0].contains("expires at 20"), "{:?}", soon.warnings());
    let late = at(expires + 1).unwrap_err();
    assert!(late[0].to_string().contains("it expired at 20"), "{late:?}");
    let early = at(1_000_000_000).unwrap_err();
    assert!(early[0].to_string().contains("not valid before"), "{early:?}");
}

#[test]
fn what_is_missing_for_a_side_is_named() {
    let nobody = Identity::nobody();
    let said = |error: TlsError| error.to_string();
    assert!(said(nobody.server(&[]).unwrap_err()).contains("tls.certificate is not given"));
    assert!(said(nobody.client(&[]).unwrap_err()).contains("tls.authority is not given"));
    assert!(said(nobody.mutual_server(&[]).unwrap_err()).contains("tls.authority is not given"));
}
