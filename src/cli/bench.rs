//! `voisin bench`: measures, prints the figures and says where the report is.

use std::process::ExitCode;

use crate::bench::{self, BenchArgs};

pub(super) fn run(args: &BenchArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            eprintln!("voisin: cannot start the network threads: {cause}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(bench::run(args)) {
        Ok(report) => {
            print!("{}", report.text());
            println!("{:24}{}", "report", args.out.join("bench.html").display());
            ExitCode::SUCCESS
        }
        Err(cause) => {
            eprintln!("voisin: {cause}");
            ExitCode::FAILURE
        }
    }
}
