//! The words of the deciding part: what happened (facts), what is to be done (effects), as plain data.
//!
//! Requests and nodes are numbers, so that everything here can be printed, compared and replayed.

/// Which of the configured nodes, in the file's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

/// A request's number in order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What sending a request a second time would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// It bears its session's number: whoever serves does it once, however often it comes.
    Numbered,
    /// It changes nothing that could be doubled: a look, a heartbeat, a login, a logout.
    Harmless,
    /// It may be done twice.
    Once,
}

/// A request as far as deciding needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its number.
    pub id: RequestId,
    /// What sending it again would do.
    pub repeatable: Repeatable,
    /// What holding it costs.
    pub bytes: usize,
    /// How often it was sent, or came back, so far.
    pub tries: u32,
    /// Somebody who had it may have executed it, and nobody has said.
    pub perhaps_executed: bool,
}

/// The role that a node says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// It stands by.
    Standby,
    /// It is becoming master.
    Promoting,
    /// It is master.
    Master,
    /// It gives its mastership away.
    Demoting,
    /// A word that a later version says.
    Other,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The cluster whose coordinator data it reads, once it has read it.
    pub cluster: Option<String>,
    /// Its epoch, or the largest that it knows.
    pub epoch: u64,
    /// Its role.
    pub role: NodeRole,
    /// Its gate is open.
    pub serving: bool,
}

/// How a node's stream of events ended, or could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nobody listens: the process is not there.
    Refused,
    /// It ended while we listened; whether anybody listens now is not known yet.
    Closed,
    /// Nothing comes, and nothing answers.
    Silent,
    /// Something answers, and it is not this node: another pair, a wrong token.
    Other,
}

/// How sending a request to a node failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It surely never left, because nobody takes connections there.
    NotConnected,
    /// It surely never left, for another reason: the connection to be used was stale.
    NotSent,
    /// It surely never left: there are as many of its kind as may be.
    NoRoom,
    /// It left, and no whole answer came: it may have been executed.
    Unanswered,
    /// The same, and all the time that it may take is over.
    TimedOut,
}

/// What an answer's envelope says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its error number.
    pub error_no: i64,
    /// The epoch it was given in.
    pub epoch: u64,
    /// For 308000005: the request may have been executed all the same.
    pub perhaps_executed: bool,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A node said what it is.
    Viewed(NodeIndex, NodeView),
    /// A node told the longest time without a master that one failure should cost.
    BoundTold(NodeIndex, u64),
    /// A node's stream of events is lost.
    StreamLost(NodeIndex, Loss),
    /// A client asked.
    Came(Asked),
    /// A node answered a request that was sent in this epoch.
    Answered {
        /// Which request.
        request: Asked,
        /// Who answered.
        node: NodeIndex,
        /// The epoch in which it was sent.
        epoch: u64,
        /// What it says.
        told: Told,
    },
    /// A request that was sent in this epoch has no answer.
    Broke {
        /// Which request.
        request: Asked,
        /// To whom it was sent.
        node: NodeIndex,
        /// The epoch in which it was sent.
        epoch: u64,
        /// How that failed.
        how: Failed,
    },
    /// A client went away while its request was under way.
    LeftUnderWay,
    /// A client went away while its request was held.
    LeftHeld(RequestId),
}

/// What is answered by the router itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 308000000: the same request again after so long.
    Switching {
        /// Drawn, so that clients do not come back all at once.
        retry_after_ms: u64,
    },
    /// 308000006: not executed.
    Overloaded {
        /// Drawn as well.
        retry_after_ms: u64,
    },
    /// 308000012: it may have been executed, and sending it again could do it twice.
    Unknown,
    /// An empty body with 503: nobody serves, and nobody is going to.
    Down,
}

/// What is to be done with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send it to this node, which serves this epoch.
    Forward {
        /// To whom.
        node: NodeIndex,
        /// The epoch that it serves.
        epoch: u64,
        /// How often it was sent or came back.
        tries: u32,
        /// Whether it may have been executed before.
        perhaps_executed: bool,
    },
    /// Keep it until another step comes.
    Hold,
    /// The node's answer goes to the client as it is.
    Pass,
    /// The client is answered this.
    Answer(Verdict),
}

/// Something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// With a request.
    Take(RequestId, Step),
    /// Give up whatever waits for an answer of this node: it is dead, or not the master any more.
    Cut(NodeIndex),
}
