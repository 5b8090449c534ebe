//! Clients that write without pause, and a ledger of what they were told.
//!
//! Every write is a job of its own name whose text nobody else writes, so a job that is missing,
//! altered or invented is told from all others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Http, wait};

/// How long a client whose server does not answer waits before it asks again.
const PAUSE: Duration = Duration::from_millis(20);

/// What all clients were told. Names map to the text of their jobs.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    acknowledged: BTreeMap<String, String>,
    /// Every job that was ever sent; those that were not acknowledged may be there or not.
    sent: BTreeMap<String, String>,
    /// How many writes each client had acknowledged.
    by_client: BTreeMap<usize, usize>,
    /// The last answer that was no acknowledgement.
    refusal: Option<(u16, String)>,
}

/// Clients at work; they stop with this value.
pub(crate) struct Load {
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

/// Whom a client asks.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its number, which its jobs are named by.
    pub(crate) number: usize,
    /// The servers that it asks in turn.
    pub(crate) urls: Vec<String>,
    /// How many bytes of text each of its jobs has.
    pub(crate) text_len: usize,
}

impl Load {
    /// `count` clients, each of which asks all `servers` in turn.
    pub(crate) fn start(cluster: &Cluster, servers: &[usize], count: usize) -> Self {
        let urls: Vec<String> = servers.iter().map(|&s| cluster.url(s, "/v1/jobs")).collect();
        let client = |number| Client { number, urls: urls.clone(), text_len: 200 };
        Self::of((0..count).map(client))
    }

    /// These clients.
    pub(crate) fn of(clients: impl IntoIterator<Item = Client>) -> Self {
        let ledger = Arc::<Mutex<Ledger>>::default();
        let stop = Arc::<AtomicBool>::default();
        let clients = clients
            .into_iter()
            .map(|client| {
                let (ledger, stop) = (Arc::clone(&ledger), Arc::clone(&stop));
                std::thread::spawn(move || client.run(&ledger, &stop))
            })
            .collect();
        Self { ledger, stop, clients }
    }

    /// How many writes were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        lock(&self.ledger).acknowledged.len()
    }

    /// How many of them to this client.
    pub(crate) fn acknowledged_to(&self, client: usize) -> usize {
        lock(&self.ledger).by_client.get(&client).copied().unwrap_or_default()
    }

    /// Waits until `more` writes are acknowledged.
    #[track_caller]
    pub(crate) fn await_more(&self, more: usize) {
        let wanted = self.acknowledged() + more;
        wait("writes to be acknowledged", || (self.acknowledged() >= wanted).then_some(()));
    }

    /// Fails unless every write that was acknowledged before is there as it was sent, once, and
    /// nothing is there that nobody sent.
    #[track_caller]
    pub(crate) fn check(&self, cluster: &Cluster, server: usize) {
        self.check_beside(cluster, server, &[]);
    }

    /// The same where jobs of these names are there too.
    #[track_caller]
    pub(crate) fn check_beside(&self, cluster: &Cluster, server: usize, others: &[&str]) {
        let acknowledged = lock(&self.ledger).acknowledged.clone();
        let mut found = all_jobs(cluster, server);
        found.retain(|name, _| !others.contains(&name.as_str()));
        let sent = lock(&self.ledger).sent.clone();
        for (name, text) in &acknowledged {
            assert!(found.contains_key(name), "{name} was acknowledged and is missing");
            assert_eq!(found.get(name), Some(text), "{name} was altered");
        }
        for (name, text) in &found {
            assert_eq!(sent.get(name), Some(text), "nobody sent {name} as it is");
        }
    }

    /// Ends all clients; what each had under way is answered first.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            assert!(client.join().is_ok(), "a client failed");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // If it has failed, the test has said so, or fails anyway.
            let _ = client.join();
        }
        if std::thread::panicking() {
            eprintln!("the last refusal of a write: {:?}", lock(&self.ledger).refusal);
        }
    }
}

impl Client {
    fn run(&self, ledger: &Mutex<Ledger>, stop: &AtomicBool) {
        let http = Http::new();
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            sent += 1;
            let name = format!("c{}-{sent}", self.number);
            let text = format!("{name} {}", "x".repeat(self.text_len));
            lock(ledger).sent.insert(name.clone(), text.clone());
            let url = &self.urls[sent % self.urls.len()];
            let body = job(&name, &text).to_string();
            let answer = http.call(reqwest::Method::POST, url, body.into());
            if answer.as_ref().is_some_and(|answer| answer.status == 201) {
                let mut ledger = lock(ledger);
                ledger.acknowledged.insert(name, text);
                *ledger.by_client.entry(self.number).or_default() += 1;
                continue;
            }
            if let Some(answer) = answer {
                lock(ledger).refusal = Some((answer.status, answer.text));
            }
            std::thread::park_timeout(PAUSE);
        }
    }
}

/// A job that runs only when it is told to.
pub(crate) fn job(name: &str, text: &str) -> Value {
    json!({
        "name": name,
        "displayname": text,
        "schedule": "@manually",
        "executor": "shell",
        "executor_config": { "command": "true" },
    })
}

/// The text of every job, by name. Fails if a name is there twice.
#[track_caller]
pub(crate) fn all_jobs(cluster: &Cluster, server: usize) -> BTreeMap<String, String> {
    // In one piece: a list that is read page by page may change between two pages.
    let jobs = wait("the jobs", || {
        let answer = cluster.get(server, "/v1/jobs")?;
        (answer.status == 200).then(|| answer.json())
    });
    let mut found = BTreeMap::new();
    for job in jobs.as_array().expect("jobs are a list") {
        let field = |field: &str| job[field].as_str().unwrap_or_default().to_owned();
        let twice = found.insert(field("name"), field("displayname"));
        assert!(twice.is_none(), "{} is there twice", field("name"));
    }
    found
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("no client fails while it holds the ledger")
}
