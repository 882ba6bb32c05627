//! House rules that no lint knows, read from the files that git tracks.

use std::fs;
use std::process::Command;

use hotpair_integration_tests::workspace;
use hotpair_lab::process::run;

/// Each tracked file that is text and still there, by its path from the root.
fn files() -> Vec<(String, String)> {
    let mut git = Command::new("git");
    // A clone owned by somebody else is read all the same.
    git.args(["-c", "safe.directory=*", "ls-files", "-z"]).current_dir(workspace());
    let list = run(&mut git).expect("the house rules are checked in a clone");
    let paths = list.split('\0').filter(|path| !path.is_empty());
    let text = |path: &str| fs::read_to_string(workspace().join(path)).ok();
    paths.filter_map(|path| Some((path.to_owned(), text(path)?))).collect()
}

/// Every line of every file that a rule objects to, as `path:line: why`.
fn objections(rule: impl Fn(&str, &str) -> Option<&'static str>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files() {
        for (line, number) in text.lines().zip(1..) {
            if let Some(why) = rule(&path, line) {
                found.push(format!("{path}:{number}: {why}"));
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_for_later_without_an_issue() {
    // Put together here, so that this file does not object to itself.
    let marks = [["to", "do!("].concat(), ["FIX", "ME"].concat(), ["XX", "X:"].concat()];
    let found = objections(|_, line| {
        marks.iter().any(|mark| line.contains(mark.as_str())).then_some("left for later")
    });
    assert_eq!(found, Vec::<String>::new());
}

/// Whether a line names a path below one of these folders of one machine.
fn names_own_path(line: &str) -> bool {
    [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat()].iter().any(
        |folder| {
            line.match_indices(folder.as_str()).any(|(at, _)| {
                // At the beginning of a path only: `/proc/1/root/etc` is another thing.
                !line[..at]
                    .ends_with(|before: char| before.is_alphanumeric() || "}*_.-".contains(before))
            })
        },
    )
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let found = objections(|_, line| names_own_path(line).then_some("a path of one machine"));
    assert_eq!(found, Vec::<String>::new());
    let example = ["cd /wo", "rk/main"].concat();
    assert!(names_own_path(&example) && !names_own_path("/proc/1/root/etc"));
}

#[test]
fn a_file_of_code_can_be_read_in_one_sitting() {
    let long: Vec<String> = files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("crates/") && path.ends_with(".rs"))
        .map(|(path, text)| (path, lines_of_code(&text)))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path} has {lines} lines"))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn every_source_file_begins_by_telling_how_to_think_about_it() {
    let mute: Vec<String> = files()
        .into_iter()
        // A file of tests beside what it tests needs no words of its own.
        .filter(|(path, _)| path.ends_with(".rs") && !path.ends_with("/tests.rs"))
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(mute, Vec::<String>::new());
}

#[test]
fn every_shell_script_can_be_parsed() {
    for (path, text) in files() {
        if path.ends_with(".sh") || text.starts_with("#!/bin/bash") {
            run(Command::new("bash").arg("-n").arg(workspace().join(&path))).unwrap();
        }
    }
}

/// The lines up to the file's own tests, which stand at its end.
fn lines_of_code(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

/// About 800, with room to finish a sentence.
const LINES_MAX: usize = 900;
