//! Whole loads from files, looked at through the `Dataset` contract only.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![allow(clippy::needless_pass_by_value, reason = "fixtures are made for one use")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{
    ArrayRef, Float32Array, Int32Array, LargeStringArray, ListArray, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt64Array,
};
use hotpair_core::services::dataset::{ColumnKind, Dataset, KeyError, Row, Value, row_digest};
use hotpair_store::{
    CancelFlag, DatasetSpec, FileFormat, LoadError, LoadedDataset, Progress, Source, Unpivot, load,
};

fn spec(path: PathBuf, key: &[&str]) -> DatasetSpec {
    let url = format!("file://{}", path.display());
    DatasetSpec {
        name: "test".to_owned(),
        source: url.parse().unwrap(),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        columns: BTreeMap::new(),
        broken_rows_max: 0,
        unpivot: None,
    }
}

fn read(spec: &DatasetSpec) -> Result<LoadedDataset, LoadError> {
    load(spec, &Progress::new(), &CancelFlag::new())
}

fn csv(folder: &Path, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join("data.csv");
    fs::write(&path, content).unwrap();
    path
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn date(day: &str) -> Value {
    Value::parse(ColumnKind::Date, day).unwrap()
}

fn all(dataset: &LoadedDataset) -> Vec<Row> {
    dataset.scan(&[], usize::MAX).unwrap()
}

/// Everything the contract promises about any dataset, checked on this one.
fn check(dataset: &LoadedDataset) {
    let rows = all(dataset);
    assert_eq!(rows.len() as u64, dataset.rows());
    let places: Vec<usize> = dataset
        .key_columns()
        .iter()
        .map(|key| dataset.columns().iter().position(|column| column == key).unwrap())
        .collect();
    let key = |row: &Row| places.iter().map(|place| row[*place].clone()).collect::<Vec<Value>>();
    let keys: Vec<Vec<Value>> = rows.iter().map(key).collect();
    assert!(keys.is_sorted_by(|left, right| left < right), "a scan is sorted and keys are unique");
    let mut sum = 0_u64;
    for (place, (row, key)) in rows.iter().zip(&keys).enumerate() {
        assert_eq!(dataset.lookup(key).unwrap().as_ref(), Some(row));
        sum = sum.wrapping_add(row_digest(row.iter().map(Value::digest)));
        if place % 7 == 0 {
            for length in 0..=key.len() {
                let from = &key[..length];
                let start = keys.partition_point(|other| other.as_slice() < from);
                let expected = &rows[start..rows.len().min(start + 3)];
                assert_eq!(dataset.scan(from, 3).unwrap(), expected, "from {from:?}");
            }
        }
    }
    assert_eq!(dataset.checksum(), sum);
}

fn sp500() -> DatasetSpec {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../deploy/demo/data");
    let path = folder.canonicalize().unwrap().join("sp500_prices.csv.gz");
    let unpivot = Unpivot {
        keep: vec!["Date".to_owned()],
        name: "symbol".to_owned(),
        value: "price".to_owned(),
    };
    DatasetSpec { unpivot: Some(unpivot), ..spec(path, &["Date", "symbol"]) }
}

#[test]
fn the_wide_price_file_becomes_a_row_for_each_day_and_symbol() {
    let progress = Progress::new();
    let dataset = load(&sp500(), &progress, &CancelFlag::new()).unwrap();
    assert_eq!(dataset.rows(), 8_313 * 20);
    let kinds: Vec<ColumnKind> = dataset.columns().iter().map(|column| column.kind).collect();
    assert_eq!(kinds, [ColumnKind::Date, ColumnKind::Text, ColumnKind::Float]);
    for (day, symbol, price) in
        [("1990-01-02", "AAPL", 0.264), ("1990-01-04", "AMD", 3.938), ("1990-01-03", "XOM", 4.027)]
    {
        let key = [date(day), text(symbol)];
        let row = vec![date(day), text(symbol), Value::Float(price)];
        assert_eq!(dataset.lookup(&key).unwrap(), Some(row));
    }
    assert_eq!(dataset.lookup(&[date("1990-01-01"), text("AAPL")]).unwrap(), None);
    let after_holidays = dataset.scan(&[date("1990-01-06")], 1).unwrap();
    assert_eq!(after_holidays[0][..2], [date("1990-01-08"), text("AAPL")]);
    let last = dataset.scan(&[date("2022-12-28"), text("XOM")], 10).unwrap();
    assert_eq!(last.len(), 1);
    let progress = progress.snapshot();
    assert_eq!((progress.rows, progress.percent()), (166_260, 100));
    check(&dataset);
}

#[test]
fn empty_cells_of_a_wide_file_make_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = csv(folder.path(), "day,A,B\n2020-01-01,1,\n2020-01-02,,2.5\n2020-01-03,,\n");
    let unpivot = Unpivot { keep: vec!["day".into()], name: "name".into(), value: "value".into() };
    let spec = DatasetSpec { unpivot: Some(unpivot), ..spec(path, &["name", "day"]) };
    let dataset = read(&spec).unwrap();
    let expected = [
        vec![date("2020-01-01"), text("A"), Value::Float(1.0)],
        vec![date("2020-01-02"), text("B"), Value::Float(2.5)],
    ];
    assert_eq!(all(&dataset), expected);
    check(&dataset);
}

#[test]
fn all_kinds_are_read_and_empty_cells_are_null() {
    let folder = tempfile::tempdir().unwrap();
    let path = csv(
        folder.path(),
        "\u{feff}id,flag,ratio,note,day,at,code\r\n\
         2,true,1.5,\"a, \"\"b\"\"\",2020-02-29,2020-02-29T01:02:03.5Z,007\r\n\
         1,,,,,,\r\n\
         -3,false,-2e3,é,1969-12-31,1969-12-31 23:59:59,1",
    );
    let dataset = read(&spec(path, &["id"])).unwrap();
    let null = Value::Null;
    let expected = [
        vec![
            Value::Integer(-3),
            Value::Boolean(false),
            Value::Float(-2000.0),
            text("é"),
            Value::Date(-1),
            Value::Timestamp(-1_000_000),
            text("1"),
        ],
        vec![
            Value::Integer(1),
            null.clone(),
            null.clone(),
            null.clone(),
            null.clone(),
            null.clone(),
            null,
        ],
        vec![
            Value::Integer(2),
            Value::Boolean(true),
            Value::Float(1.5),
            text("a, \"b\""),
            date("2020-02-29"),
            Value::parse(ColumnKind::Timestamp, "2020-02-29T01:02:03.5").unwrap(),
            text("007"),
        ],
    ];
    assert_eq!(all(&dataset), expected);
    check(&dataset);
}

#[test]
fn a_broken_row_is_named_with_file_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    for (rows, line, column, what) in [
        ("1,2,x\n2,zwei,y\n", 3, Some("b"), "`zwei` is no integer"),
        ("1,2,x\r\n2,zwei,y\r\n", 3, Some("b"), "`zwei` is no integer"),
        ("1,2,\"x\ny\"\n\n2,2.5,y\n", 5, Some("b"), "`2.5` is no integer"),
        ("1,2,x\n2,3\n", 3, None, "2 fields where the header has 3"),
        ("1,2,x\r\n2,3,y,z\r\n", 3, None, "4 fields where the header has 3"),
        ("1,2,x\n,3,y\n", 3, Some("a"), "the key is missing"),
        ("1,2,x\n5,3,y\n1,4,z\n", 4, Some("a"), "the key is that of line 2"),
        ("1,2,x\n2,3,\"y\n", 3, None, "a quote is opened and never closed"),
        ("1,2,x\n2,3,y\rz\n", 3, None, "carriage return"),
        ("1,2,x\n2,3,y\r\"z\n5,6,x\n", 3, None, "carriage return"),
        ("1,2,x\n99999999999999999999,3,y\n", 3, Some("a"), "is no integer"),
    ] {
        let path = csv(folder.path(), format!("a,b,c\n{rows}"));
        let mut spec = spec(path.clone(), &["a"]);
        spec.columns =
            ["a", "b"].map(|name| (name.to_owned(), ColumnKind::Integer)).into_iter().collect();
        let LoadError::TooManyBroken { first, broken, allowed } = read(&spec).unwrap_err() else {
            panic!("broken rows fail the load: {rows:?}");
        };
        assert_eq!((broken, allowed), (1, 0), "{rows:?}");
        assert_eq!((first.line, first.column.as_deref()), (line, column), "{rows:?}: {first}");
        assert!(first.what.contains(what), "{first}");
        assert!(first.to_string().starts_with(&format!("{}, line {line}", path.display())));

        spec.broken_rows_max = 1;
        let progress = Progress::new();
        let dataset = load(&spec, &progress, &CancelFlag::new()).unwrap();
        assert_eq!(progress.snapshot().broken_rows, 1);
        assert_eq!(progress.first_broken_rows(), [*first]);
        assert!(dataset.lookup(&[Value::Integer(1)]).unwrap().unwrap()[1] == Value::Integer(2));
        check(&dataset);
    }
}

#[test]
fn invalid_utf_8_is_a_broken_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = csv(folder.path(), b"a,b\n1,x\n2,\xff\xfe\n3,z\n");
    let mut spec = spec(path, &["a"]);
    spec.broken_rows_max = 1;
    let progress = Progress::new();
    let dataset = load(&spec, &progress, &CancelFlag::new()).unwrap();
    assert_eq!(dataset.rows(), 2);
    let [broken] = &progress.first_broken_rows()[..] else { panic!("one row is broken") };
    assert_eq!((broken.line, broken.column.as_deref()), (3, Some("b")));
    assert!(broken.what.contains("UTF-8"), "{broken}");
}

#[test]
fn a_broken_number_among_many_is_found_without_configuration_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let rows = 300_000;
    for broken_at in [7, rows / 2, rows - 1] {
        let mut content = String::from("id,name,amount\n");
        for row in 0..rows {
            let amount = if row == broken_at { "?".to_owned() } else { (row * 3).to_string() };
            content.push_str(&format!("{row},name {},{amount}\n", row % 1000));
        }
        let path = csv(folder.path(), content);
        let mut spec = spec(path, &["id"]);
        let error = read(&spec).unwrap_err();
        let LoadError::TooManyBroken { first, .. } = error else { panic!("{error}") };
        assert_eq!((first.line, first.column.as_deref()), (broken_at + 2, Some("amount")));
        spec.broken_rows_max = 1;
        let dataset = read(&spec).unwrap();
        assert_eq!(dataset.rows(), rows - 1);
        let key = |row: u64| [Value::Integer(i64::try_from(row).unwrap())];
        assert_eq!(dataset.lookup(&key(broken_at)).unwrap(), None);
        assert!(dataset.lookup(&key(broken_at - 1)).unwrap().is_some());
    }
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let whole = gzipped("a,b\n1,2\n".repeat(10_000).as_bytes());
    let wide: String = (0..7).map(|row| format!("{row}\n")).collect();
    for (path, key, expected) in [
        (folder.path().join("none.csv"), "a", "cannot be opened"),
        (folder.path().join("none.parquet"), "a", "cannot be opened"),
        (file("empty.csv", b""), "a", "is empty"),
        (file("blank.csv", b"\n\r\n"), "a", "is empty"),
        (file("empty.csv.gz", &gzipped(b"")), "a", "is empty"),
        (file("empty.parquet", b""), "a", "is empty"),
        (file("double.csv", b"a,b,a\n1,2,3\n"), "a", "two columns are named `a`"),
        (file("unnamed.csv", b"a,,c\n1,2,3\n"), "a", "column 2 has no name"),
        (file("zero.csv", b"\0\0\0\n1\n"), "a", "zero byte"),
        (file("key.csv", b"a,b\n1,2\n"), "k", "has no column `k`, which `key` names; it has a, b"),
        (file("cut.csv.gz", &whole[..whole.len() / 2]), "a", "cannot be read to its end"),
        (file("no.csv.gz", wide.as_bytes()), "a", "cannot be read to its end"),
        (file("no.parquet", wide.as_bytes()), "a", "cannot be read as Parquet"),
    ] {
        let shown = path.display().to_string();
        let message = read(&spec(path, &[key])).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(&shown), "{message}");
    }
    let directory = folder.path().join("folder.csv");
    fs::create_dir(&directory).unwrap();
    assert!(matches!(read(&spec(directory, &["a"])), Err(LoadError::Open { .. })));
}

#[test]
fn a_specification_that_contradicts_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = csv(folder.path(), "a,b\n1,2\n");
    let unpivot = |keep: &[&str], name: &str| Unpivot {
        keep: keep.iter().map(|name| (*name).to_owned()).collect(),
        name: name.to_owned(),
        value: "v".to_owned(),
    };
    let good = spec(path, &["a"]);
    let kinds = BTreeMap::from([("z".to_owned(), ColumnKind::Text)]);
    for (spec, expected) in [
        (DatasetSpec { key: vec![], ..good.clone() }, "`key` names no column"),
        (DatasetSpec { key: vec!["a".into(), "a".into()], ..good.clone() }, "names `a` twice"),
        (DatasetSpec { columns: kinds, ..good.clone() }, "which `columns` names"),
        (DatasetSpec { unpivot: Some(unpivot(&["a", "b"], "n")), ..good.clone() }, "all columns"),
        (DatasetSpec { unpivot: Some(unpivot(&["z"], "n")), ..good.clone() }, "unpivot.keep"),
        (DatasetSpec { unpivot: Some(unpivot(&["a"], "a")), ..good.clone() }, "one column twice"),
        (
            DatasetSpec {
                unpivot: Some(unpivot(&["a"], "n")),
                key: vec!["v".into()],
                ..good.clone()
            },
            "can be no key",
        ),
    ] {
        let message = read(&spec).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_header_without_rows_is_an_empty_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = read(&spec(csv(folder.path(), "a,b\n"), &["b", "a"])).unwrap();
    assert_eq!(dataset.rows(), 0);
    assert_eq!(dataset.lookup(&[text("x"), text("y")]).unwrap(), None);
    assert_eq!(dataset.scan(&[text("x")], 5).unwrap(), Vec::<Row>::new());
    check(&dataset);
}

#[test]
fn a_wrong_key_is_an_error_and_an_absent_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = csv(folder.path(), "a,b,c\nx,1,9\ny,2,8\n");
    let dataset = read(&spec(path, &["a", "b"])).unwrap();
    assert!(matches!(dataset.lookup(&[text("x")]), Err(KeyError::WrongCount { .. })));
    let wrong = dataset.lookup(&[text("x"), text("1")]).unwrap_err();
    assert_eq!(wrong.to_string(), "key column `b` is integer, text was given");
    assert!(dataset.scan(&[Value::Null], 1).is_err());
    for (account, number) in [("x", 2), ("x", 0), ("x", 3), ("w", 1), ("z", 1), ("xx", 1)] {
        assert_eq!(dataset.lookup(&[text(account), Value::Integer(number)]).unwrap(), None);
    }
    assert_eq!(dataset.scan(&[text("x"), Value::Integer(2)], 9).unwrap().len(), 1);
    assert_eq!(dataset.scan(&[text("z")], 9).unwrap().len(), 0);
}

#[test]
fn a_cancelled_load_ends_as_cancelled() {
    let cancel = CancelFlag::new();
    cancel.cancel();
    let ended = load(&sp500(), &Progress::new(), &cancel);
    assert!(matches!(ended, Err(LoadError::Cancelled)));

    let folder = tempfile::tempdir().unwrap();
    let mut content = String::from("id,text\n");
    (0..2_000_000).for_each(|row| content.push_str(&format!("{row},some text of row {row}\n")));
    let spec = spec(csv(folder.path(), content), &["id"]);
    let (progress, cancel) = (Progress::new(), CancelFlag::new());
    let ended = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&spec, &progress, &cancel));
        while progress.snapshot().rows == 0 {
            std::thread::yield_now();
        }
        cancel.cancel();
        load.join().unwrap()
    });
    assert!(matches!(ended, Err(LoadError::Cancelled)));
    assert!(progress.snapshot().rows < 2_000_000);
}

#[test]
fn the_checksum_does_not_depend_on_the_order_of_rows_but_on_every_value() {
    let folder = tempfile::tempdir().unwrap();
    let mut checksums = vec![];
    for rows in ["1,x\n2,y\n3,\n", "3,\n1,x\n2,y\n", "1,y\n2,x\n3,\n", "1,x\n2,y\n3,z\n"] {
        let path = csv(folder.path(), format!("a,b\n{rows}"));
        checksums.push(read(&spec(path, &["a"])).unwrap().checksum());
    }
    assert_eq!(checksums[0], checksums[1]);
    assert_ne!(checksums[0], checksums[2]);
    assert_ne!(checksums[0], checksums[3]);
}

#[test]
fn keys_too_wide_for_their_ranges_are_packed_by_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = String::from("a,b,c,d\n");
    let mut random = fastrand::Rng::with_seed(5);
    for row in 0..5_000 {
        let wide = i64::MIN.wrapping_add(random.i64(0..1000).wrapping_mul(i64::MAX / 500));
        let float = f64::from(random.i32(-3..3)) * 1e300;
        let at = Value::Timestamp(random.i64(-9..9) * 1_000_000_000_000_000);
        content.push_str(&format!("{wide},{float:e},{at},{row}\n"));
    }
    let dataset = read(&spec(csv(folder.path(), content), &["a", "b", "c", "d"])).unwrap();
    assert_eq!(dataset.rows(), 5_000);
    check(&dataset);
    let below = [Value::Integer(i64::MIN), Value::Float(f64::NEG_INFINITY)];
    assert_eq!(dataset.scan(&below, 1).unwrap(), all(&dataset)[..1]);
    assert_eq!(dataset.scan(&[Value::Integer(i64::MAX)], 1).unwrap(), Vec::<Row>::new());
}

#[test]
fn random_files_are_found_row_by_row_and_scanned_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let columns = random.usize(1..6);
        let kinds: Vec<u8> = (0..columns).map(|_| random.u8(0..5)).collect();
        let keys = random.usize(1..=columns);
        let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
        let mut content = format!("{}\n", names.join(","));
        for row in 0..random.usize(0..400) {
            let cells: Vec<String> = kinds
                .iter()
                .enumerate()
                .map(|(column, kind)| match kind {
                    // The first column makes the key unique, the others the sorting hard.
                    _ if column == 0 => format!("\"key,\n{}\"", row * 7919 % 1000),
                    0 => random.i64(-5..5).to_string(),
                    1 => format!("{:.1}", random.f64() - 0.5),
                    2 => Value::Date(random.i32(-9..9)).to_string(),
                    3 => format!("\"t{}\"\"{}\"", random.u8(0..3), "x".repeat(random.usize(0..12))),
                    _ if column >= keys && random.bool() => String::new(),
                    _ => random.bool().to_string(),
                })
                .collect();
            content.push_str(&cells.join(","));
            content.push_str(if random.bool() { "\n" } else { "\r\n" });
        }
        let mut key: Vec<&str> = names[..keys].iter().map(String::as_str).collect();
        random.shuffle(&mut key);
        let dataset = read(&spec(csv(folder.path(), &content), &key)).unwrap();
        check(&dataset);
        let packed = folder.path().join("data.csv.gz");
        fs::write(&packed, gzipped(content.as_bytes())).unwrap();
        let again = read(&spec(packed, &key)).unwrap();
        assert_eq!(again.checksum(), dataset.checksum(), "seed {seed}");
    }
}

fn parquet(folder: &Path, columns: Vec<(&str, ArrayRef)>, rows_per_group: usize) -> PathBuf {
    let path = folder.join("data.parquet");
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_per_group))
        .set_compression(parquet::basic::Compression::SNAPPY)
        .build();
    let file = fs::File::create(&path).unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

#[test]
fn parquet_is_read_group_by_group_and_its_types_become_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let count = 10_000;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int32Array::from_iter_values((0..count).rev()))),
        (
            "name",
            Arc::new(LargeStringArray::from_iter_values((0..count).map(|n| format!("n{}", n % 9)))),
        ),
        (
            "ratio",
            Arc::new(Float32Array::from_iter((0..count).map(|n| (n % 3 > 0).then_some(n as f32)))),
        ),
        (
            "at",
            Arc::new(TimestampNanosecondArray::from_iter_values(
                (0..count).map(|n| i64::from(n) * 1000),
            )),
        ),
    ];
    let path = parquet(folder.path(), columns, 1024);
    let progress = Progress::new();
    let dataset =
        load(&spec(path.clone(), &["name", "id"]), &progress, &CancelFlag::new()).unwrap();
    assert_eq!(dataset.rows(), 10_000);
    assert_eq!(progress.snapshot().percent(), 100);
    let row = dataset.lookup(&[text("n1"), Value::Integer(9_998)]).unwrap().unwrap();
    assert_eq!(row, [Value::Integer(9_998), text("n1"), Value::Float(1.0), Value::Timestamp(1)]);
    check(&dataset);

    let whole = fs::read(&path).unwrap();
    for place in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        // Whatever the damage does, it does not take the process down.
        let _outcome = read(&spec(path.clone(), &["name", "id"]));
        fs::write(&path, &whole[..place]).unwrap();
        assert!(read(&spec(path.clone(), &["name", "id"])).is_err(), "cut at {place}");
    }
}

#[test]
fn a_parquet_value_that_does_not_convert_is_a_broken_row() {
    let folder = tempfile::tempdir().unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(UInt64Array::from(vec![1, u64::MAX, 3]))),
        ("number", Arc::new(StringArray::from(vec!["7", "8", "neun"]))),
    ];
    let mut spec = spec(parquet(folder.path(), columns, 2), &["id"]);
    spec.columns.insert("number".to_owned(), ColumnKind::Integer);
    spec.broken_rows_max = 2;
    let progress = Progress::new();
    let dataset = load(&spec, &progress, &CancelFlag::new()).unwrap();
    assert_eq!(all(&dataset), [vec![Value::Integer(1), Value::Integer(7)]]);
    let broken: Vec<(u64, Option<String>)> = progress
        .first_broken_rows()
        .into_iter()
        .map(|broken| (broken.line, broken.column))
        .collect();
    assert_eq!(broken, [(2, Some("id".to_owned())), (3, Some("number".to_owned()))]);
}

#[test]
fn a_parquet_column_without_a_kind_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let lists =
        ListArray::from_iter_primitive::<arrow_array::types::Int32Type, _, _>([Some([Some(1)])]);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("id", Arc::new(Int32Array::from(vec![1]))), ("list", Arc::new(lists))];
    let path = parquet(folder.path(), columns, 10);
    let message = read(&spec(path, &["id"])).unwrap_err().to_string();
    assert!(message.contains("column `list`"), "{message}");
}

#[test]
fn a_source_says_what_it_is() {
    let Source::File { format, .. } = sp500().source else { panic!("the file is one") };
    assert_eq!(format, FileFormat::CsvGz);
}
