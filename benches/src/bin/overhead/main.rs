//! What a call costs through every layer and stack, and through others', measured in one run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod calls;
mod floor;
mod instructions;
mod measure;
mod peers;
mod subjects;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    if std::env::args().any(|argument| argument == instructions::WATCHED) {
        return instructions::watched();
    }
    let rows = measure::rows(&instructions::of_all()?)?;
    let bare = rows[0].clone();
    for row in rows {
        println!("{:50} {:7.0} {:6.2} {:5.1} {:7.0} {:7.0} {:5.2} {:6}", row.subject, row.ns-bare.ns, row.ratio, row.allocations-bare.allocations, row.bytes-bare.bytes, row.instructions.unwrap_or(0.0)-bare.instructions.unwrap_or(0.0), row.scaling.unwrap_or(0.0), row.future_bytes);
    }
    Ok(())
}
