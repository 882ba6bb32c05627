//! Is a server well? One question over the network, with one limit.

use std::time::Duration;

use hotpair_core::services::governed::Address;
use hotpair_http::client;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How a member is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It accepts a connection.
    Tcp,
    /// It answers `GET /` with a status below 500, whole.
    Http,
}

impl Check {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }

    /// Asks once; why it is not well.
    pub(crate) async fn ask(self, address: &Address, limit: Duration) -> Result<(), String> {
        match self {
            Self::Tcp => match timeout(limit, TcpStream::connect(address.as_str())).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("cannot connect to {address}: {error}")),
                Err(_) => {
                    Err(format!("no connection to {address} within {} ms", limit.as_millis()))
                }
            },
            Self::Http => {
                let answer = client::get(&format!("http://{address}/"), limit).await;
                let status = answer.map_err(|error| error.to_string())?.status;
                if status.is_server_error() {
                    return Err(format!("{address} answered {status}"));
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A server that answers each connection with these bytes.
    async fn server(answer: &'static str) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    /// An address where nobody listens.
    async fn nobody() -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string().parse().unwrap()
    }

    #[tokio::test]
    async fn who_accepts_is_well_and_who_refuses_is_not() {
        assert_eq!(Check::Tcp.ask(&server("").await, LONG).await, Ok(()));
        let why = Check::Tcp.ask(&nobody().await, LONG).await.unwrap_err();
        assert!(why.contains("refused"), "{why}");
    }

    #[tokio::test]
    async fn any_status_below_500_is_well() {
        let missing = server("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(Check::Http.ask(&missing, LONG).await, Ok(()));
        let broken = server("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        let why = Check::Http.ask(&broken, LONG).await.unwrap_err();
        assert!(why.contains("503"), "{why}");
        let mute = server("").await;
        assert!(Check::Http.ask(&mute, LONG).await.is_err());
        assert!(Check::Http.ask(&nobody().await, LONG).await.is_err());
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_in_time_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let frozen = listener.local_addr().unwrap().to_string().parse().unwrap();
        let why = Check::Http.ask(&frozen, Duration::from_millis(50)).await.unwrap_err();
        assert!(why.contains("no answer of"), "{why}");
    }
}
