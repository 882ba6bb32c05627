//! A dataset: large, read-mostly external data that a node holds in memory while it serves.
//!
//! Think of two things that know nothing of each other. A [`Dataset`] is data that is there: typed
//! rows, found by key and walked in key order; drivers build it. A [`Loading`] is the machine that
//! decides when that data should be there: it hears of promotions, demotions and how a load fares,
//! and answers with [`Effect`]s. Whoever carries out the effects stamps every fact with the attempt
//! it belongs to, so that the end of a load nobody wants any more changes nothing.
//!
//! ```text
//!              wanted                     Loaded
//!   Absent ────────────▶ Loading ────────────────────▶ Ready
//!     ▲                   │  ▲ │                         │
//!     │     not wanted    │  │ │ LoadFailed              │
//!     ├───────────────────┘  │ ▼                         │
//!     │     not wanted     Failed  (again after 1, 2, 4 … 60 s)
//!     ├──────────────────────┘                           │
//!     │                  not wanted                      │
//!     └──────────────────────────────────────────────────┘
//! ```
//!
//! *Wanted* is: always with [`LoadMode::Preload`], while master with [`LoadMode::OnPromote`].

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The kind of every value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColumnKind {
    /// True or false.
    Boolean,
    /// A signed 64-bit integer.
    Integer,
    /// A 64-bit float.
    Float,
    /// UTF-8 text.
    Text,
    /// A day.
    Date,
    /// A moment in UTC, in microseconds.
    Timestamp,
}

impl ColumnKind {
    /// The kind's name as the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            ColumnKind::Boolean => "boolean",
            ColumnKind::Integer => "integer",
            ColumnKind::Float => "float",
            ColumnKind::Text => "text",
            ColumnKind::Date => "date",
            ColumnKind::Timestamp => "timestamp",
        }
    }
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no column kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no column kind: boolean, integer, float, text, date or timestamp")]
pub struct UnknownColumnKind(pub String);

impl FromStr for ColumnKind {
    type Err = UnknownColumnKind;

    fn from_str(word: &str) -> Result<Self, UnknownColumnKind> {
        match word {
            "boolean" => Ok(ColumnKind::Boolean),
            "integer" => Ok(ColumnKind::Integer),
            "float" => Ok(ColumnKind::Float),
            "text" => Ok(ColumnKind::Text),
            "date" => Ok(ColumnKind::Date),
            "timestamp" => Ok(ColumnKind::Timestamp),
            other => Err(UnknownColumnKind(other.to_owned())),
        }
    }
}

/// A column: its name as in the source and the kind of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name, unique within the dataset.
    pub name: String,
    /// The kind every value has, unless it is null.
    pub kind: ColumnKind,
}

/// One cell of a row.
///
/// Values are ordered as keys are: null first, then by kind, then by value; floats in IEEE 754
/// total order, text by its bytes.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A float.
    Float(f64),
    /// Text.
    Text(String),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
}

/// The values of a row, in column order.
pub type Row = Vec<Value>;

impl Value {
    /// The kind of this value; null has none.
    pub fn kind(&self) -> Option<ColumnKind> {
        match self {
            Value::Null => None,
            Value::Boolean(_) => Some(ColumnKind::Boolean),
            Value::Integer(_) => Some(ColumnKind::Integer),
            Value::Float(_) => Some(ColumnKind::Float),
            Value::Text(_) => Some(ColumnKind::Text),
            Value::Date(_) => Some(ColumnKind::Date),
            Value::Timestamp(_) => Some(ColumnKind::Timestamp),
        }
    }

    /// Reads a value of `kind` from text as [`Display`](fmt::Display) writes it.
    ///
    /// Dates are `1990-01-02`; timestamps `1990-01-02T03:04:05`, with up to six decimals and a `Z`
    /// if one likes. Nothing where the text is no such value.
    pub fn parse(kind: ColumnKind, text: &str) -> Option<Value> {
        match kind {
            ColumnKind::Boolean => text.parse().ok().map(Value::Boolean),
            ColumnKind::Integer => text.parse().ok().map(Value::Integer),
            ColumnKind::Float => text.parse().ok().map(Value::Float),
            ColumnKind::Text => Some(Value::Text(text.to_owned())),
            ColumnKind::Date => days_from_text(text).map(Value::Date),
            ColumnKind::Timestamp => microseconds_from_text(text).map(Value::Timestamp),
        }
    }

    /// A 64-bit digest, the same on every machine and in every version that shares a pair.
    pub fn digest(&self) -> u64 {
        let (tag, bits) = match self {
            Value::Null => (0, 0),
            Value::Boolean(truth) => (1, u64::from(*truth)),
            Value::Integer(number) => (2, number.cast_unsigned()),
            Value::Float(number) => (3, number.to_bits()),
            Value::Text(text) => (4, text_digest(text)),
            Value::Date(days) => (5, i64::from(*days).cast_unsigned()),
            Value::Timestamp(microseconds) => (6, microseconds.cast_unsigned()),
        };
        mix(bits ^ mix(tag))
    }

    fn kind_place(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Boolean(_) => 1,
            Value::Integer(_) => 2,
            Value::Float(_) => 3,
            Value::Text(_) => 4,
            Value::Date(_) => 5,
            Value::Timestamp(_) => 6,
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Boolean(left), Value::Boolean(right)) => left.cmp(right),
            (Value::Integer(left), Value::Integer(right))
            | (Value::Timestamp(left), Value::Timestamp(right)) => left.cmp(right),
            (Value::Float(left), Value::Float(right)) => left.total_cmp(right),
            (Value::Text(left), Value::Text(right)) => left.cmp(right),
            (Value::Date(left), Value::Date(right)) => left.cmp(right),
            (left, right) => left.kind_place().cmp(&right.kind_place()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Boolean(truth) => truth.fmt(f),
            Value::Integer(number) => number.fmt(f),
            Value::Float(number) => number.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::Date(days) => write_day(f, i64::from(*days)),
            Value::Timestamp(microseconds) => {
                write_day(f, microseconds.div_euclid(DAY_MICROSECONDS))?;
                let within = microseconds.rem_euclid(DAY_MICROSECONDS);
                let (seconds, fraction) = (within / 1_000_000, within % 1_000_000);
                let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                write!(f, "T{hour:02}:{minute:02}:{second:02}")?;
                if fraction != 0 {
                    write!(f, ".{fraction:06}")?;
                }
                f.write_str("Z")
            }
        }
    }
}

/// The digest of a row from the digests of its values, in column order.
pub fn row_digest(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(ROW_DIGEST_SEED, |digest, value| mix(digest ^ value))
}

/// Why a key was not understood. Nothing was looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// More or fewer values than the key has columns.
    #[error("the key has {expected} values ({columns}), {got} were given")]
    WrongCount {
        /// The key columns, separated by commas.
        columns: String,
        /// How many values the key has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// A value of another kind than its column's.
    #[error("key column `{column}` is {expected}, {got} was given")]
    WrongKind {
        /// The key column.
        column: String,
        /// Its kind.
        expected: ColumnKind,
        /// The kind that was given; `null` for null.
        got: &'static str,
    },
}

/// Checks a key or (for a scan) the beginning of one against the key's columns.
pub fn check_key(columns: &[Column], key: &[Value], prefix_allowed: bool) -> Result<(), KeyError> {
    if key.len() > columns.len() || (key.len() < columns.len() && !prefix_allowed) {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        return Err(KeyError::WrongCount {
            columns: names.join(", "),
            expected: columns.len(),
            got: key.len(),
        });
    }
    for (column, value) in columns.iter().zip(key) {
        if value.kind() != Some(column.kind) {
            return Err(KeyError::WrongKind {
                column: column.name.clone(),
                expected: column.kind,
                got: value.kind().map_or("null", ColumnKind::name),
            });
        }
    }
    Ok(())
}

/// Rows that are in memory: found by key, walked in key order.
///
/// An implementation never changes once it is handed out: every answer is about the same rows, from
/// any thread, without waiting. Keys are unique and hold no nulls. A key that is not there is not
/// an error; a key that could not be there (wrong number or kind of values) is, and the error names
/// the column.
pub trait Dataset: Send + Sync + fmt::Debug {
    /// All columns, in the order of a row's values.
    fn columns(&self) -> &[Column];

    /// The columns of the key, in key order.
    fn key_columns(&self) -> &[Column];

    /// How many rows there are.
    fn rows(&self) -> u64;

    /// The row with this key.
    fn lookup(&self, key: &[Value]) -> Result<Option<Row>, KeyError>;

    /// At most `limit` rows in key order, beginning with the first whose key is not before `from`.
    ///
    /// `from` may be the beginning of a key, or empty: a missing value is before every other.
    fn scan(&self, from: &[Value], limit: usize) -> Result<Vec<Row>, KeyError>;

    /// The wrapping sum of [`row_digest`] over all rows: the same for the same rows in any order.
    ///
    /// The first call walks all rows; later ones remember.
    fn checksum(&self) -> u64;

    /// Bytes the rows and their index occupy.
    fn memory_bytes(&self) -> u64;
}

/// When a dataset is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// By the master, when it becomes one; dropped when it no longer is.
    OnPromote,
    /// By both nodes, from their start on.
    Preload,
}

impl FromStr for LoadMode {
    type Err = UnknownLoadMode;

    fn from_str(word: &str) -> Result<Self, UnknownLoadMode> {
        match word {
            "on-promote" => Ok(LoadMode::OnPromote),
            "preload" => Ok(LoadMode::Preload),
            other => Err(UnknownLoadMode(other.to_owned())),
        }
    }
}

/// A word that names no load mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no load mode: on-promote or preload")]
pub struct UnknownLoadMode(pub String);

/// The number of one try to load, counted up from 1 in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// Where a dataset stands.
#[derive(Debug, Clone, PartialEq)]
pub enum DatasetState {
    /// Neither here nor coming.
    Absent,
    /// Being loaded.
    Loading {
        /// Which try this is.
        attempt: Attempt,
        /// When it began.
        since_ms: u64,
        /// Rows read so far.
        rows: u64,
        /// How much of the source is read, 0 to 100.
        percent: u8,
        /// Reading speed since the beginning.
        rows_per_second: u64,
    },
    /// In memory.
    Ready {
        /// Which try brought it.
        attempt: Attempt,
        /// How many rows there are.
        rows: u64,
        /// When the load that brought it began: it shows nothing newer than that.
        as_of_ms: u64,
        /// How long loading took.
        took_ms: u64,
    },
    /// The last try failed; there will be another.
    Failed {
        /// Which try failed.
        attempt: Attempt,
        /// Why, for people.
        reason: String,
        /// When the next try begins.
        retry_at_ms: u64,
    },
}

/// What happened. Facts about a load carry its attempt; one that is not the current is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The node is up and has no role yet.
    NodeStarted,
    /// The node became master.
    Promoted,
    /// The node is no longer master.
    Demoted,
    /// The load came this far.
    Progressed {
        /// The load's attempt.
        attempt: Attempt,
        /// Rows read so far.
        rows: u64,
        /// How much of the source is read, 0 to 100.
        percent: u8,
        /// Reading speed since the beginning.
        rows_per_second: u64,
    },
    /// The load is done and the data can be published.
    Loaded {
        /// The load's attempt.
        attempt: Attempt,
        /// How many rows there are.
        rows: u64,
    },
    /// The load failed and left nothing behind.
    LoadFailed {
        /// The load's attempt.
        attempt: Attempt,
        /// Why, for people.
        reason: String,
    },
    /// The deadline the machine asked for has come.
    TimePassed,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Begin to load, and report with this attempt.
    StartLoad {
        /// The stamp of all facts about this load.
        attempt: Attempt,
    },
    /// Stop this load; nobody waits for its end.
    CancelLoad {
        /// The load to stop.
        attempt: Attempt,
    },
    /// Let lookups see what this load brought.
    Publish {
        /// The load whose data it is.
        attempt: Attempt,
    },
    /// Take the published data away and free its memory.
    Drop,
}

/// Whether a caller can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// Yes.
    Ready,
    /// Not yet; ask again later.
    StillLoading {
        /// How much of the source is read, 0 to 100.
        percent: u8,
    },
    /// No; it is being retried.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// No; it is not kept by this node now.
    Absent,
}

/// The machine that decides when a dataset is loaded, tried again and dropped.
///
/// Invariants: at most one load runs, the one of the state's attempt; attempts only count up; in
/// `Absent` nothing runs and nothing is held.
#[derive(Debug, Clone)]
pub struct Loading {
    mode: LoadMode,
    state: DatasetState,
    last_attempt: u64,
    /// Failures since the last success, with the latest reason: the alert's condition.
    failures: u32,
    last_failure: Option<String>,
}

impl Loading {
    /// A dataset that nothing has been done for yet.
    pub fn new(mode: LoadMode) -> Loading {
        Loading {
            mode,
            state: DatasetState::Absent,
            last_attempt: 0,
            failures: 0,
            last_failure: None,
        }
    }

    /// Takes in a fact and says what is to be done about it.
    #[must_use]
    pub fn handle(&mut self, fact: Fact, now_ms: u64) -> Vec<Effect> {
        match fact {
            Fact::NodeStarted => match self.mode {
                LoadMode::Preload => self.handle_wanted(now_ms),
                LoadMode::OnPromote => vec![],
            },
            Fact::Promoted => self.handle_wanted(now_ms),
            Fact::Demoted => match self.mode {
                LoadMode::Preload => vec![],
                LoadMode::OnPromote => self.become_absent(),
            },
            Fact::Progressed { attempt, rows, percent, rows_per_second } => {
                self.handle_progress(attempt, rows, percent, rows_per_second);
                vec![]
            }
            Fact::Loaded { attempt, rows } => self.handle_loaded(attempt, rows, now_ms),
            Fact::LoadFailed { attempt, reason } => self.handle_failed(attempt, reason, now_ms),
            Fact::TimePassed => match self.deadline_ms() {
                Some(deadline_ms) if deadline_ms <= now_ms => self.become_loading(now_ms),
                Some(_) | None => vec![],
            },
        }
    }

    /// Where the dataset stands.
    pub fn state(&self) -> &DatasetState {
        &self.state
    }

    /// When [`Fact::TimePassed`] is due, if ever.
    pub fn deadline_ms(&self) -> Option<u64> {
        match &self.state {
            DatasetState::Failed { retry_at_ms, .. } => Some(*retry_at_ms),
            DatasetState::Absent | DatasetState::Loading { .. } | DatasetState::Ready { .. } => {
                None
            }
        }
    }

    /// What a caller is to be told now.
    pub fn availability(&self) -> Availability {
        match &self.state {
            DatasetState::Absent => Availability::Absent,
            DatasetState::Loading { percent, .. } => {
                Availability::StillLoading { percent: *percent }
            }
            DatasetState::Ready { .. } => Availability::Ready,
            DatasetState::Failed { reason, .. } => Availability::Failed { reason: reason.clone() },
        }
    }

    /// Why the last load failed, until one succeeds or the dataset is not wanted any more.
    ///
    /// This, and not the state, is what an alert follows: it does not clear while a retry runs.
    pub fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// Loads that failed since the last that did not.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn handle_wanted(&mut self, now_ms: u64) -> Vec<Effect> {
        match self.state {
            // A promotion is the moment not to sit out a backoff.
            DatasetState::Absent | DatasetState::Failed { .. } => self.become_loading(now_ms),
            DatasetState::Loading { .. } | DatasetState::Ready { .. } => vec![],
        }
    }

    fn handle_progress(&mut self, of: Attempt, new_rows: u64, new_percent: u8, new_speed: u64) {
        match &mut self.state {
            DatasetState::Loading { attempt, rows, percent, rows_per_second, .. }
                if *attempt == of =>
            {
                *rows = new_rows;
                *percent = new_percent.min(100);
                *rows_per_second = new_speed;
            }
            // Late: the load it tells of is over or was never wanted to its end.
            DatasetState::Loading { .. }
            | DatasetState::Absent
            | DatasetState::Ready { .. }
            | DatasetState::Failed { .. } => {}
        }
    }

    fn handle_loaded(&mut self, of: Attempt, rows: u64, now_ms: u64) -> Vec<Effect> {
        let Some(since_ms) = self.running_since(of) else { return vec![] };
        self.failures = 0;
        self.last_failure = None;
        self.state = DatasetState::Ready {
            attempt: of,
            rows,
            as_of_ms: since_ms,
            took_ms: now_ms.saturating_sub(since_ms),
        };
        vec![Effect::Publish { attempt: of }]
    }

    fn handle_failed(&mut self, of: Attempt, reason: String, now_ms: u64) -> Vec<Effect> {
        if self.running_since(of).is_none() {
            return vec![];
        }
        let retry_at_ms = now_ms.saturating_add(retry_delay_ms(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(reason.clone());
        self.state = DatasetState::Failed { attempt: of, reason, retry_at_ms };
        vec![]
    }

    fn become_loading(&mut self, now_ms: u64) -> Vec<Effect> {
        assert!(
            matches!(self.state, DatasetState::Absent | DatasetState::Failed { .. }),
            "a load begins only where none runs and nothing is held"
        );
        self.last_attempt += 1;
        let attempt = Attempt(self.last_attempt);
        self.state = DatasetState::Loading {
            attempt,
            since_ms: now_ms,
            rows: 0,
            percent: 0,
            rows_per_second: 0,
        };
        vec![Effect::StartLoad { attempt }]
    }

    fn become_absent(&mut self) -> Vec<Effect> {
        let effects = match self.state {
            DatasetState::Loading { attempt, .. } => vec![Effect::CancelLoad { attempt }],
            DatasetState::Ready { .. } => vec![Effect::Drop],
            DatasetState::Absent | DatasetState::Failed { .. } => vec![],
        };
        self.state = DatasetState::Absent;
        self.failures = 0;
        self.last_failure = None;
        effects
    }

    /// When the load of this attempt began, if it is the one that runs.
    fn running_since(&self, of: Attempt) -> Option<u64> {
        match self.state {
            DatasetState::Loading { attempt, since_ms, .. } if attempt == of => Some(since_ms),
            DatasetState::Loading { .. }
            | DatasetState::Absent
            | DatasetState::Ready { .. }
            | DatasetState::Failed { .. } => None,
        }
    }
}

fn retry_delay_ms(failures_before: u32) -> u64 {
    RETRY_MS_MIN.saturating_mul(1 << failures_before.min(10)).min(RETRY_MS_MAX)
}

fn text_digest(text: &str) -> u64 {
    let mut words = text.as_bytes().chunks_exact(8);
    let mut digest = mix(text.len() as u64);
    for word in &mut words {
        let word: [u8; 8] = word.try_into().expect("chunks of eight are eight bytes long");
        digest = mix(digest ^ u64::from_le_bytes(word));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(digest ^ u64::from_le_bytes(last))
}

/// Spreads a change of any bit over all bits, and loses none: two odd multiplications, three folds.
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Days from 1970-01-01 to the first of a year of the proleptic Gregorian calendar.
fn days_to_year(year: i64) -> i64 {
    let before = year - 1;
    let leap_days = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    before * 365 + leap_days - DAYS_TO_1970
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_lengths(year: i64) -> [i64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

fn write_day(f: &mut fmt::Formatter<'_>, days: i64) -> fmt::Result {
    // A year is never longer than 366 days nor shorter than 365 on average over four centuries, so
    // this guess is at most one year off.
    let mut year = 1970 + (days * 400).div_euclid(146_097);
    while days_to_year(year) > days {
        year -= 1;
    }
    while days_to_year(year + 1) <= days {
        year += 1;
    }
    let mut day = days - days_to_year(year);
    let mut month = 1;
    for length in month_lengths(year) {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    write!(f, "{year:04}-{month:02}-{:02}", day + 1)
}

fn days_from_text(text: &str) -> Option<i32> {
    let mut parts = text.splitn(3, '-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2)?;
    let day = digits(parts.next()?, 2)?;
    let months = month_lengths(year);
    let month_place = usize::try_from(month).ok()?.checked_sub(1)?;
    if day < 1 || day > *months.get(month_place)? {
        return None;
    }
    let days = days_to_year(year) + months[..month_place].iter().sum::<i64>() + day - 1;
    i32::try_from(days).ok()
}

fn microseconds_from_text(text: &str) -> Option<i64> {
    let (day, time) = text.split_once(['T', ' '])?;
    let time = time.strip_suffix('Z').unwrap_or(time);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.splitn(3, ':');
    let hour = digits(parts.next()?, 2)?;
    let minute = digits(parts.next()?, 2)?;
    let second = digits(parts.next()?, 2)?;
    if hour > 23 || minute > 59 || second > 59 || fraction.is_empty() || fraction.len() > 6 {
        return None;
    }
    let scale = 10_i64.pow(6 - u32::try_from(fraction.len()).ok()?);
    let fraction = digits(fraction, fraction.len())? * scale;
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(i64::from(days_from_text(day)?) * DAY_MICROSECONDS + seconds * 1_000_000 + fraction)
}

fn digits(text: &str, length: usize) -> Option<i64> {
    if text.len() != length || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The wait after a first failure; it doubles with each further one.
const RETRY_MS_MIN: u64 = 1_000;
/// The longest wait between two tries.
const RETRY_MS_MAX: u64 = 60_000;
const DAY_MICROSECONDS: i64 = 86_400_000_000;
const DAYS_TO_1970: i64 = 719_162;
const ROW_DIGEST_SEED: u64 = 0x686f_7470_6169_7221;

#[cfg(test)]
mod tests {
    use super::*;

    fn start(machine: &mut Loading, fact: Fact, now_ms: u64) -> Attempt {
        match machine.handle(fact, now_ms).as_slice() {
            [Effect::StartLoad { attempt }] => *attempt,
            other => panic!("a load should begin, not {other:?}"),
        }
    }

    fn failed(attempt: Attempt) -> Fact {
        Fact::LoadFailed { attempt, reason: "no such file".to_owned() }
    }

    #[test]
    fn an_on_promote_dataset_is_loaded_by_the_master_and_dropped_on_demotion() {
        let mut machine = Loading::new(LoadMode::OnPromote);
        assert_eq!(machine.handle(Fact::NodeStarted, 0), vec![]);
        assert_eq!(machine.availability(), Availability::Absent);
        let attempt = start(&mut machine, Fact::Promoted, 10);
        let progress = Fact::Progressed { attempt, rows: 70, percent: 35, rows_per_second: 1000 };
        assert_eq!(machine.handle(progress, 50), vec![]);
        assert_eq!(machine.availability(), Availability::StillLoading { percent: 35 });
        let effects = machine.handle(Fact::Loaded { attempt, rows: 200 }, 210);
        assert_eq!(effects, vec![Effect::Publish { attempt }]);
        let ready = DatasetState::Ready { attempt, rows: 200, as_of_ms: 10, took_ms: 200 };
        assert_eq!(machine.state(), &ready);
        assert_eq!(machine.availability(), Availability::Ready);
        assert_eq!(machine.handle(Fact::Demoted, 300), vec![Effect::Drop]);
        assert_eq!(machine.availability(), Availability::Absent);
    }

    #[test]
    fn a_preloaded_dataset_survives_promotion_and_demotion() {
        let mut machine = Loading::new(LoadMode::Preload);
        let attempt = start(&mut machine, Fact::NodeStarted, 0);
        assert_eq!(machine.handle(Fact::Promoted, 1), vec![]);
        let _published = machine.handle(Fact::Loaded { attempt, rows: 1 }, 2);
        assert_eq!(machine.handle(Fact::Demoted, 3), vec![]);
        assert_eq!(machine.handle(Fact::Promoted, 4), vec![]);
        assert_eq!(machine.availability(), Availability::Ready);
    }

    #[test]
    fn a_demotion_while_loading_cancels_and_the_late_end_is_ignored() {
        let mut machine = Loading::new(LoadMode::OnPromote);
        let first = start(&mut machine, Fact::Promoted, 0);
        let effects = machine.handle(Fact::Demoted, 5);
        assert_eq!(effects, vec![Effect::CancelLoad { attempt: first }]);
        assert_eq!(machine.handle(Fact::Loaded { attempt: first, rows: 9 }, 6), vec![]);
        assert_eq!(machine.state(), &DatasetState::Absent);

        let second = start(&mut machine, Fact::Promoted, 7);
        assert!(second > first);
        let late = Fact::Progressed { attempt: first, rows: 9, percent: 99, rows_per_second: 9 };
        assert_eq!(machine.handle(late, 8), vec![]);
        assert_eq!(machine.handle(Fact::Loaded { attempt: first, rows: 9 }, 8), vec![]);
        assert_eq!(machine.handle(failed(first), 8), vec![]);
        assert_eq!(machine.availability(), Availability::StillLoading { percent: 0 });
    }

    #[test]
    fn a_failed_load_is_tried_again_after_1_2_4_and_at_most_60_seconds() {
        let mut machine = Loading::new(LoadMode::OnPromote);
        let mut now_ms = 1_000;
        let mut attempt = start(&mut machine, Fact::Promoted, now_ms);
        let mut waits = vec![];
        for _ in 0..8 {
            assert_eq!(machine.handle(failed(attempt), now_ms), vec![]);
            let deadline_ms = machine.deadline_ms().unwrap();
            waits.push(deadline_ms - now_ms);
            assert_eq!(machine.handle(Fact::TimePassed, deadline_ms - 1), vec![]);
            now_ms = deadline_ms;
            attempt = start(&mut machine, Fact::TimePassed, now_ms);
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(machine.failures(), 8);
        let _published = machine.handle(Fact::Loaded { attempt, rows: 1 }, now_ms);
        assert_eq!(machine.failures(), 0);
    }

    #[test]
    fn the_failure_is_remembered_while_a_retry_runs() {
        let mut machine = Loading::new(LoadMode::OnPromote);
        let first = start(&mut machine, Fact::Promoted, 0);
        let _nothing = machine.handle(failed(first), 1);
        let reason = "no such file".to_owned();
        assert_eq!(machine.availability(), Availability::Failed { reason });
        let second = start(&mut machine, Fact::TimePassed, 5_000);
        assert_eq!(machine.availability(), Availability::StillLoading { percent: 0 });
        assert_eq!(machine.last_failure(), Some("no such file"));
        let _published = machine.handle(Fact::Loaded { attempt: second, rows: 1 }, 6_000);
        assert_eq!(machine.last_failure(), None);
    }

    #[test]
    fn a_promotion_does_not_wait_for_the_backoff_and_a_demotion_ends_it() {
        let mut preload = Loading::new(LoadMode::Preload);
        let first = start(&mut preload, Fact::NodeStarted, 0);
        let _nothing = preload.handle(failed(first), 1);
        let _second = start(&mut preload, Fact::Promoted, 2);

        let mut on_promote = Loading::new(LoadMode::OnPromote);
        let first = start(&mut on_promote, Fact::Promoted, 0);
        let _nothing = on_promote.handle(failed(first), 1);
        assert_eq!(on_promote.handle(Fact::Demoted, 2), vec![]);
        assert_eq!(on_promote.deadline_ms(), None);
        assert_eq!(on_promote.last_failure(), None);
        assert_eq!(on_promote.handle(Fact::TimePassed, 90_000), vec![]);
    }

    #[test]
    fn dates_and_timestamps_are_written_and_read_alike() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (7_306, "1990-01-02"),
            (11_016, "2000-02-29"),
            (19_354, "2022-12-28"),
            (-719_162, "0001-01-01"),
        ] {
            assert_eq!(Value::Date(days).to_string(), text);
            assert_eq!(Value::parse(ColumnKind::Date, text), Some(Value::Date(days)));
        }
        for days in (-200_000..200_000).step_by(37) {
            let text = Value::Date(days).to_string();
            assert_eq!(Value::parse(ColumnKind::Date, &text), Some(Value::Date(days)), "{text}");
        }
        for (microseconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_500_000, "1970-01-01T00:00:01.500000Z"),
        ] {
            let value = Value::Timestamp(microseconds);
            assert_eq!(value.to_string(), text);
            assert_eq!(Value::parse(ColumnKind::Timestamp, text), Some(value));
        }
        for wrong in ["1990-13-01", "1990-02-29", "1990-1-2", "199O-01-02", "", "1990-01-02x"] {
            assert_eq!(Value::parse(ColumnKind::Date, wrong), None, "{wrong}");
        }
        for wrong in ["1990-01-02", "1990-01-02T24:00:00", "1990-01-02T00:00:00.", "T"] {
            assert_eq!(Value::parse(ColumnKind::Timestamp, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn values_are_ordered_as_keys_are() {
        let ordered = [
            Value::Null,
            Value::Boolean(false),
            Value::Boolean(true),
            Value::Integer(i64::MIN),
            Value::Integer(-1),
            Value::Integer(7),
            Value::Float(-1.5),
            Value::Float(0.0),
            Value::Float(f64::INFINITY),
            Value::Text(String::new()),
            Value::Text("a".to_owned()),
            Value::Text("ab".to_owned()),
            Value::Date(-3),
            Value::Date(3),
            Value::Timestamp(0),
        ];
        assert!(ordered.is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn equal_digests_mean_equal_values() {
        let values = [
            Value::Null,
            Value::Boolean(false),
            Value::Integer(0),
            Value::Integer(1),
            Value::Float(0.0),
            Value::Text(String::new()),
            Value::Text("\0".to_owned()),
            Value::Text("12345678".to_owned()),
            Value::Text("12345678\0".to_owned()),
            Value::Date(0),
            Value::Timestamp(0),
        ];
        let digests: std::collections::BTreeSet<u64> = values.iter().map(Value::digest).collect();
        assert_eq!(digests.len(), values.len());
        assert_ne!(row_digest([1, 2]), row_digest([2, 1]));
    }

    #[test]
    fn a_wrong_key_is_an_error_that_names_the_column() {
        let columns = [
            Column { name: "account".to_owned(), kind: ColumnKind::Text },
            Column { name: "day".to_owned(), kind: ColumnKind::Date },
        ];
        let account = Value::Text("A".to_owned());
        assert_eq!(check_key(&columns, &[account.clone(), Value::Date(1)], false), Ok(()));
        assert_eq!(check_key(&columns, std::slice::from_ref(&account), true), Ok(()));
        let short = check_key(&columns, std::slice::from_ref(&account), false).unwrap_err();
        assert_eq!(short.to_string(), "the key has 2 values (account, day), 1 were given");
        let wrong = check_key(&columns, &[account, Value::Null], false).unwrap_err();
        assert_eq!(wrong.to_string(), "key column `day` is date, null was given");
    }
}
