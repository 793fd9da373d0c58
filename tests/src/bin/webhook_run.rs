//! Receives webhooks into an inbox in a file; meant to be killed at any moment and started again.
//!
//! `webhook_run <address> <inbox> <folder>` makes a file in the folder for each event that it handles, named after the
//! event's session, and notes in the file `runs` that it began to.

use std::{error::Error, fs, io::Write, path::PathBuf, process::ExitCode, time::Duration};

use didit_api::webhook::Secrets;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{net::TcpListener, time::sleep};
use tower::service_fn;
use tower_didit::{
    Randomness,
    webhook::{
        Delivery, Failure, Receiver, Worker,
        inbox::{Capacity, RedbInbox},
    },
};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [address, inbox, folder] = arguments else { return Err("three arguments: address, inbox, folder".into()) };
    let listener = TcpListener::bind(address).await?;
    let inbox = RedbInbox::open(inbox, Capacity::DEFAULT).await?;
    let receiver = Receiver::builder(Secrets::new(["not-a-real-secret"])?, inbox.clone()).build()?;
    let (folder, random) = (PathBuf::from(folder), Randomness::new());
    let handler = service_fn(move |delivery: Delivery| {
        let (folder, random) = (folder.clone(), random.clone());
        async move {
            let session = delivery.event.session_id.unwrap_or_default();
            let mut runs = fs::OpenOptions::new().append(true).create(true).open(folder.join("runs"))?;
            runs.write_all(b".")?;
            // Real time, because processes know no other: some of them die in the middle of it.
            sleep(Duration::from_millis(30).mul_f64(random.unit())).await;
            fs::write(folder.join(session), "handled")?;
            Ok::<_, Failure>(())
        }
    });
    tokio::spawn(Worker::builder(inbox).build(handler)?.run());
    loop {
        let (stream, _) = listener.accept().await?;
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(receiver.clone()));
        tokio::spawn(async move {
            // A connection that breaks is the sender's to make again.
            let _ = connection.await;
        });
    }
}
