//! `voisin verify`: the report of an offline check, for people or as JSON.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::VerifyArgs;
use crate::database::{self, VerifyReport};

/// Checks a data folder: 0 without faults, 1 with, 2 when it could not be checked.
pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    let report = match database::verify(&args.data) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("voisin: {error}");
            return ExitCode::from(2);
        }
    };
    let faults = fault_count(&report);
    if args.json {
        println!("{}", to_json(&report));
    } else {
        print_text(&report, faults);
    }
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fault_count(report: &VerifyReport) -> usize {
    report.faults.len() + report.collections.iter().map(|c| c.faults.len()).sum::<usize>()
}

fn print_text(report: &VerifyReport, faults: usize) {
    for collection in &report.collections {
        println!(
            "{:?}: {} segments, {} rows, {} log records, {} bytes checked",
            collection.name,
            collection.segments,
            collection.rows,
            collection.log_records,
            collection.bytes_checked,
        );
        for fault in &collection.faults {
            println!("  fault: {fault}");
        }
        for note in &collection.notes {
            println!("  note: {note}");
        }
    }
    for fault in &report.faults {
        println!("fault: {fault}");
    }
    let verdict = if faults == 0 { "ok".into() } else { format!("{faults} faults") };
    println!("{} collections: {verdict}", report.collections.len());
}

fn to_json(report: &VerifyReport) -> Value {
    let collections: Vec<Value> = report
        .collections
        .iter()
        .map(|c| {
            json!({
                "name": c.name,
                "folder": c.folder,
                "segments": c.segments,
                "rows": c.rows,
                "log_records": c.log_records,
                "bytes_checked": c.bytes_checked,
                "faults": c.faults,
                "notes": c.notes,
            })
        })
        .collect();
    json!({ "collections": collections, "faults": report.faults })
}
