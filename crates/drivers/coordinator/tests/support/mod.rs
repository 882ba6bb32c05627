//! One real ZooKeeper server, and drivers whose facts can be waited for.

#![allow(dead_code, unreachable_pub, missing_debug_implementations)] // each binary uses its part

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use hotpair_coordinator::{Access, FunctionEntry, ZooKeeperDriver, ZooKeeperSettings};
use hotpair_core::pair::Moment;
use hotpair_core::pair::effect::{
    HandoverBound, Replace, SyncBound, ZooKeeperOrder, ZooKeeperRequest,
};
use hotpair_core::pair::fact::{Answer, Fact, LookTrouble, Picture, SessionId, ZooKeeperEvent};
use hotpair_core::pair::identity::{BootId, Epoch, Identity, Incarnation, Instance, NodeId};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

const JAR: &str = "/usr/share/java/zookeeper.jar";
/// Nothing that is waited for takes longer on a loaded machine.
pub const LONG: Duration = Duration::from_secs(30);
pub const T: Duration = Duration::from_secs(2);
pub const PAIR: &str = "pair";

/// A stand-alone server, killed when dropped.
pub struct Server {
    pub address: SocketAddr,
    pub secure: Option<SocketAddr>,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    pub fn start() -> Self {
        let mut server = Self::prepare(free_address());
        let (address, data) = (server.address, server.folder.path().join("data"));
        server.configure(&format!(
            "dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n",
            data.display(),
            address.port()
        ));
        server.start_again();
        server
    }

    /// One that has a port with TLS as well, and wants certificates there.
    pub fn secure(key_store: &Path, trust_store: &Path) -> Self {
        let mut server = Self::prepare(free_address());
        let (address, data) = (server.address, server.folder.path().join("data"));
        let secure = free_address();
        server.secure = Some(secure);
        server.configure(&format!(
            "dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
             secureClientPort={}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={}\nssl.trustStore.location={}\n",
            data.display(),
            address.port(),
            secure.port(),
            key_store.display(),
            trust_store.display()
        ));
        server.start_again();
        server
    }

    /// Three servers of one ensemble.
    pub fn ensemble() -> Vec<Self> {
        let mut servers: Vec<Self> = (0..3).map(|_| Self::prepare(free_address())).collect();
        let members: String = (1..)
            .zip(&servers)
            .map(|(id, server)| {
                let (quorum, election) = (free_address().port(), free_address().port());
                let client = server.address;
                format!("server.{id}=127.0.0.1:{quorum}:{election}:participant;{client}\n")
            })
            .collect();
        for (id, server) in (1..).zip(&mut servers) {
            let data = server.folder.path().join("data");
            std::fs::create_dir_all(&data).unwrap();
            std::fs::write(data.join("myid"), format!("{id}")).unwrap();
            server.configure(&format!("dataDir={}\n{members}", data.display()));
            server.spawn();
        }
        servers.iter().for_each(Self::wait_until_serving);
        servers
    }

    fn prepare(address: SocketAddr) -> Self {
        let there =
            Path::new(JAR).exists() && Command::new("java").arg("-version").output().is_ok();
        assert!(
            there,
            "these tests need a real ZooKeeper: \
             apt-get install --no-install-recommends zookeeper default-jre-headless"
        );
        Self { address, secure: None, folder: tempfile::tempdir().unwrap(), child: None }
    }

    fn configure(&mut self, own: &str) {
        let common = "tickTime=500\ninitLimit=10\nsyncLimit=5\nadmin.enableServer=false\n\
                      maxClientCnxns=0\n";
        let config = format!("{common}{own}");
        std::fs::write(self.folder.path().join("zoo.cfg"), config).unwrap();
    }

    pub fn start_again(&mut self) {
        self.spawn();
        self.wait_until_serving();
    }

    fn spawn(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let child = Command::new("java")
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
            // A disk kept busy by others must not stop it for seconds at an fsync.
            .arg("-Dzookeeper.forceSync=no")
            .args(["-cp", &class_path(self.secure.is_some())])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.folder.path().join("zoo.cfg"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn wait_until_serving(&self) {
        let until = Instant::now() + LONG;
        while !self.serves() {
            assert!(Instant::now() < until, "ZooKeeper did not start within {LONG:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn serves(&self) -> bool {
        let mut answer = String::new();
        let asked = TcpStream::connect(self.address).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_millis(200)))?;
            stream.write_all(b"srvr")?;
            stream.read_to_string(&mut answer)
        });
        asked.is_ok() && answer.contains("Mode:")
    }

    /// What it knew is gone; to be used on a dead server.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Returns when every thread of the server has stopped.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let child = self.child.as_ref().expect("the server runs");
        let stopped = |stat: String| stat.rsplit(')').next().unwrap().starts_with(" T");
        let tasks = format!("/proc/{}/task", child.id());
        let all_stopped = || {
            std::fs::read_dir(&tasks).unwrap().all(|task| {
                std::fs::read_to_string(task.unwrap().path().join("stat")).is_ok_and(stopped)
            })
        };
        let until = Instant::now() + LONG;
        while !all_stopped() {
            assert!(Instant::now() < until, "the server did not stop within {LONG:?}");
            std::thread::yield_now();
        }
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// As anybody gets there.
    pub fn open(&self) -> Access {
        Access::open(vec![self.address.to_string()])
    }

    /// An ordinary client, to do what others would do.
    pub async fn client(&self) -> zookeeper_client::Client {
        zookeeper_client::Client::connect(&self.address.to_string()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The jar's manifest names the others, but not all of what TLS needs.
fn class_path(tls: bool) -> String {
    let mut path = JAR.to_owned();
    if tls {
        let jars = std::fs::read_dir(Path::new(JAR).parent().unwrap()).unwrap();
        let jars = jars.map(|jar| jar.unwrap().path());
        let netty = jars.filter(|jar| {
            let name = jar.file_name().unwrap().to_string_lossy();
            name.starts_with("netty-") && name.ends_with(".jar")
        });
        netty.for_each(|jar| path.push_str(&format!(":{}", jar.display())));
    }
    path
}

/// A port that no other test here gets, and the kernel gives to no outgoing connection: a server binds
/// it a second later, and once more when it is started again.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 97).expect("below 97") * 31;
    loop {
        let step = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8_000 + step % 4_000));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

pub fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ms = time.tv_sec * 1000 + time.tv_nsec / 1_000_000;
    Moment(u64::try_from(ms).expect("time since boot is not negative"))
}

pub fn settings(servers: &[SocketAddr]) -> ZooKeeperSettings {
    ZooKeeperSettings {
        access: Access::open(servers.iter().map(SocketAddr::to_string).collect()),
        session_timeout: T,
        root: "/hotpair".to_owned(),
        pair: PAIR.to_owned(),
        endpoints: [("http".to_owned(), "127.0.0.1:8080".to_owned())].into(),
        functions: functions(3),
        master_endpoints: tokio::sync::watch::Sender::default(),
    }
}

pub fn functions(count: usize) -> Vec<FunctionEntry> {
    (0..count)
        .map(|n| FunctionEntry {
            group: format!("group/{}", n % 10),
            service: format!("service-{n}"),
            version: "1.0".to_owned(),
            functions: vec![(1000, "first".to_owned()), (1001, "second".to_owned())],
        })
        .collect()
}

pub fn identity(node: &str, instance: u128) -> Arc<Identity> {
    Arc::new(Identity {
        incarnation: Incarnation {
            node: NodeId::new(node),
            instance: Instance(instance),
            boot_id: BootId(77),
        },
        life: u64::MAX - 1,
        pair: PAIR.into(),
        root: "/hotpair".into(),
        config_digest: 1,
        version: "0.1.0".into(),
    })
}

/// A driver and what it said.
pub struct Node {
    pub driver: ZooKeeperDriver,
    facts: mpsc::Receiver<Fact>,
    pub generation: u64,
    /// As the last look found it.
    pub sync: SyncBound,
    /// As the last look found it.
    pub handover: HandoverBound,
}

impl Node {
    pub fn new(settings: ZooKeeperSettings, me: Arc<Identity>) -> Self {
        let (sender, facts) = mpsc::channel(256);
        let driver = ZooKeeperDriver::start(settings, me, sender, Arc::new(now));
        let handover = HandoverBound { version: 0, revoke: false };
        Self { driver, facts, generation: 0, sync: SyncBound::Missing, handover }
    }

    /// One that bears the silence of a server that is started again.
    pub async fn patient(servers: &[SocketAddr], name: &str, instance: u128) -> Self {
        let settings = ZooKeeperSettings { session_timeout: T * 4, ..settings(servers) };
        let mut node = Self::new(settings, identity(name, instance));
        node.open().await;
        node
    }

    /// A node with an open session.
    pub async fn on(server: &Server, name: &str, instance: u128) -> Self {
        let mut node = Self::new(settings(&[server.address]), identity(name, instance));
        node.open().await;
        node
    }

    pub fn order(&self, what: ZooKeeperRequest) {
        self.driver.carry_out(ZooKeeperOrder { generation: self.generation, what });
    }

    pub fn order_session(&mut self) {
        self.generation += 1;
        self.order(ZooKeeperRequest::OpenSession);
    }

    /// A server that has just started may be too slow for one attempt: tried again, as control does.
    pub async fn open(&mut self) -> SessionId {
        let until = Instant::now() + LONG;
        loop {
            self.order_session();
            let opened = self.until(|event| match event {
                ZooKeeperEvent::SessionOpened { session, .. } => Some(Ok(session)),
                ZooKeeperEvent::ConnectFailed { reason } => Some(Err(reason)),
                _ => None,
            });
            match opened.await {
                Ok(session) => return session,
                Err(reason) => assert!(Instant::now() < until, "{reason}"),
            }
        }
    }

    /// Drops the driver; returns when its thread is gone.
    pub async fn drop_driver(self) {
        let Self { driver, mut facts, .. } = self;
        drop(driver);
        let gone = async { while facts.recv().await.is_some() {} };
        tokio::time::timeout(LONG, gone).await.expect("the thread ends with the driver");
    }

    /// The next event of this generation.
    pub async fn event(&mut self) -> ZooKeeperEvent {
        loop {
            let fact = tokio::time::timeout(LONG, self.facts.recv()).await;
            match fact.expect("an event within the longest wait").expect("the driver lives") {
                Fact::ZooKeeper(fact) if fact.generation == self.generation => return fact.what,
                Fact::ZooKeeper(_) => {}
                other => panic!("{other:?} is none of the driver's"),
            }
        }
    }

    /// Passes events over until one is what is wanted.
    pub async fn until<R>(&mut self, wanted: impl Fn(ZooKeeperEvent) -> Option<R>) -> R {
        loop {
            let event = self.event().await;
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    pub async fn until_is(&mut self, wanted: &ZooKeeperEvent) {
        self.until(|event| (event == *wanted).then_some(())).await;
    }

    pub async fn look(&mut self) -> Picture {
        self.order(ZooKeeperRequest::Look);
        let looked = |event| match event {
            ZooKeeperEvent::Looked { picture } => Some(picture),
            ZooKeeperEvent::LookFailed { reason, .. } => panic!("{reason}"),
            _ => None,
        };
        let picture = self.until(looked).await;
        self.sync = match &picture.sync {
            Some(sync) => SyncBound::Version(sync.version),
            None => SyncBound::Missing,
        };
        self.handover = HandoverBound { version: picture.handover.version, revoke: false };
        picture
    }

    pub async fn look_fails(&mut self) -> (String, LookTrouble) {
        self.order(ZooKeeperRequest::Look);
        self.until(|event| match event {
            ZooKeeperEvent::LookFailed { reason, trouble } => Some((reason, trouble)),
            ZooKeeperEvent::Looked { picture } => panic!("looked well: {picture:?}"),
            _ => None,
        })
        .await
    }

    pub async fn claim(&mut self, epoch: u64, version: i32, replace: Option<i32>) -> Answer {
        self.order(ZooKeeperRequest::Claim {
            epoch: Epoch(epoch),
            epoch_version: Some(version),
            replace: replace.map(|version| Replace { version: Some(version) }),
            sync: self.sync,
            handover: self.handover,
        });
        self.until(|event| match event {
            ZooKeeperEvent::Claimed { answer, epoch: of, .. } => {
                assert_eq!(of, Epoch(epoch));
                Some(answer)
            }
            _ => None,
        })
        .await
    }

    pub async fn heartbeat(&mut self, epoch: u64, epoch_version: i32) -> Answer {
        self.order(ZooKeeperRequest::Heartbeat { epoch: Epoch(epoch), epoch_version });
        self.until(|event| match event {
            ZooKeeperEvent::HeartbeatAnswered { answer, .. } => Some(answer),
            _ => None,
        })
        .await
    }

    pub async fn register(&mut self, epoch: u64, epoch_version: i32) -> (u32, Answer) {
        self.order(ZooKeeperRequest::Register { epoch: Epoch(epoch), epoch_version });
        self.until(|event| match event {
            ZooKeeperEvent::RegisterAnswered { entries, answer, .. } => Some((entries, answer)),
            _ => None,
        })
        .await
    }

    /// Looks, claims the next epoch and wants it done.
    pub async fn become_master(&mut self) -> (u64, i32) {
        let picture = self.look().await;
        let epoch = picture.epoch.epoch.0 + 1;
        let replace = picture.master.map(|master| master.version);
        match self.claim(epoch, picture.epoch.version, replace).await {
            Answer::Done { epoch_version } => (epoch, epoch_version),
            other => panic!("the claim was answered {other:?}"),
        }
    }
}
