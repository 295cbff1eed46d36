//! One run: workers, records all the time, faults one after the other, and the comparison at the end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::NewPartitions,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use super::{
    comparison::{self, Expectations},
    fault::Fault,
    ledger::Ledger,
    server,
};
use crate::support::{
    block_on, broker, eventually,
    pipeline::{Options, Process, Stream, output},
    subscriber::Subscriber,
};

const PARTITIONS: i32 = 3;
/// Live topics have room for what is added to the source.
const LIVE_PARTITIONS: i32 = 3;
/// Pause between two records: some 200 a second.
const PAUSE: Duration = Duration::from_millis(5);
/// Time between two faults.
const QUIET: Duration = Duration::from_millis(700);

/// What a run was and took.
pub struct Report {
    pub faults: Vec<(Fault, Duration)>,
    pub sent: usize,
    pub live_records: usize,
    /// What differed between what was sent, stored and seen.
    pub wrong: Vec<String>,
}

impl Report {
    /// Differences of a kind.
    pub fn count(&self, kind: &str) -> usize {
        self.wrong.iter().filter(|wrong| wrong.starts_with(kind)).count()
    }
}

struct Chaos {
    stream: Stream,
    random: fastrand::Rng,
    workers: Vec<Process>,
    ledger: Arc<Mutex<Ledger>>,
    sending: Arc<Sending>,
    subscriber: Subscriber,
    expected: Expectations,
    partitions: i32,
}

#[derive(Default)]
struct Sending {
    paused: AtomicBool,
    stopped: AtomicBool,
    sent: AtomicUsize,
}

/// Runs these faults, and compares.
pub fn run(faults: Vec<Fault>, mut random: fastrand::Rng) -> Report {
    let stream = Stream::new(PARTITIONS);
    comparison::keep_history(&stream.database);
    let live = [stream.labels.to_string(), stream.dead_letters.to_string()];
    for topic in &live {
        broker::create_topic(topic, LIVE_PARTITIONS);
    }
    let subscriber = Subscriber::start(&live.map(|topic| (topic, LIVE_PARTITIONS)));
    let ledger = Arc::new(Mutex::new(Ledger::new(&stream.topic, random.fork())));
    let sending = Arc::new(Sending::default());
    let sender = send_all_the_time(Arc::clone(&ledger), Arc::clone(&sending));
    let mut chaos = Chaos {
        stream,
        random,
        workers: Vec::new(),
        ledger,
        sending,
        subscriber,
        expected: Expectations::default(),
        partitions: PARTITIONS,
    };
    chaos.start("");
    chaos.start("");
    chaos.wait_for_progress();
    let mut reports = Vec::new();
    for fault in faults {
        let began = chaos.inflict(fault);
        chaos.wait_for_progress();
        reports.push((fault, began.elapsed()));
        std::thread::sleep(QUIET);
    }
    chaos.sending.stopped.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    chaos.ledger.lock().unwrap().flush();
    chaos.finish(reports)
}

fn send_all_the_time(ledger: Arc<Mutex<Ledger>>, sending: Arc<Sending>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while !sending.stopped.load(Ordering::Relaxed) {
            if !sending.paused.load(Ordering::Relaxed) {
                let mut ledger = ledger.lock().unwrap();
                ledger.send();
                sending.sent.store(ledger.entries.len(), Ordering::Relaxed);
            }
            std::thread::sleep(PAUSE);
        }
    })
}

impl Chaos {
    fn start(&mut self, failpoints: &str) {
        let worker = self.stream.start(&Options { failpoints: failpoints.to_owned(), ..Options::chaos() });
        self.workers.push(worker);
    }

    fn any_worker(&mut self) -> usize {
        self.random.usize(..self.workers.len())
    }

    /// Stops one worker, so that its partitions go to the next that starts.
    fn make_room(&mut self) {
        if self.workers.len() > 1 {
            let index = self.any_worker();
            self.workers.swap_remove(index).stop();
        }
    }

    /// Waits until a record that was sent from now on is visible of every source partition.
    fn wait_for_progress(&mut self) {
        let from = self.sending.sent.load(Ordering::Relaxed);
        eventually("every partition has a label of a record that was sent later", || {
            self.check_workers();
            let partitions: BTreeSet<i32> = self.subscriber.with(|seen| {
                let newer =
                    seen.iter().rev().take_while(|record| record.update().is_none_or(|number| number + 2_000 > from));
                newer
                    .filter(|record| record.update().is_some_and(|number| number >= from))
                    .map(|record| record.position.key.partition)
                    .collect()
            });
            (partitions.len() >= usize::try_from(self.partitions).unwrap()).then_some(())
        });
    }

    /// A worker that ends by itself failed.
    fn check_workers(&mut self) {
        for worker in &mut self.workers {
            assert!(!worker.has_ended(), "a worker ended by itself:\n{}", worker.log());
        }
    }

    /// Does it, and says when the harm was done.
    fn inflict(&mut self, fault: Fault) -> Instant {
        match fault {
            Fault::KillAt(boundary) => self.kill_at(boundary),
            Fault::KillAtRandom => {
                let index = self.any_worker();
                self.workers.swap_remove(index).kill();
                let began = Instant::now();
                self.start("");
                began
            }
            Fault::KillAllAtRandom => {
                self.kill_all();
                let began = Instant::now();
                self.start("");
                self.start("");
                began
            }
            Fault::KillInTakeover => {
                let index = self.any_worker();
                self.workers.swap_remove(index).kill();
                let point = *self.random.choice(&["before-claim", "after-claim"][..]).unwrap();
                self.start(&format!("{point}=return"));
                self.await_death();
                let began = Instant::now();
                self.start("");
                began
            }
            Fault::FreezeAt(boundary) => self.freeze_at(boundary),
            Fault::FreezeAtRandom => {
                if self.workers.len() < 2 {
                    self.start("");
                    self.wait_for_progress();
                }
                let index = self.any_worker();
                self.workers[index].signal("STOP");
                let began = Instant::now();
                self.wait_for_progress();
                self.workers[index].signal("CONT");
                began
            }
            Fault::Join => {
                self.start("");
                Instant::now()
            }
            Fault::Leave => {
                self.make_room();
                let began = Instant::now();
                if self.workers.is_empty() {
                    self.start("");
                }
                began
            }
            Fault::RestartKafka => server::restart("kafka"),
            Fault::RestartPostgres => server::restart("postgres"),
            Fault::TransactionTimesOut => self.freeze_all_in_a_transaction(),
            Fault::OffsetsDeleted => {
                self.stop_all_at_once();
                block_on(broker::admin().delete_groups(&[&self.stream.topic], &broker::request_options())).unwrap();
                self.restart_workers()
            }
            Fault::OffsetsOverwritten => {
                self.stop_all_at_once();
                self.overwrite_offsets();
                self.restart_workers()
            }
            Fault::DatabaseRestored => self.restore_database(),
            Fault::TopicRecreated => self.recreate_topic(),
            Fault::PartitionsAdded => self.add_partitions(),
        }
    }

    fn kill_at(&mut self, boundary: &'static str) -> Instant {
        self.make_room();
        let passes = self.passes(boundary);
        self.start(&format!("{boundary}={passes}*off->return"));
        self.await_death();
        let began = Instant::now();
        self.start("");
        began
    }

    /// How often the program passes a boundary before it is hit: claims are rare.
    fn passes(&mut self, boundary: &str) -> usize {
        if boundary.ends_with("claim") || boundary.ends_with("delete") { 0 } else { self.random.usize(..12) }
    }

    /// Waits for the last worker to die at its crash point.
    fn await_death(&mut self) {
        let mut worker = self.workers.pop().unwrap();
        eventually("the worker dies at its crash point", || worker.has_ended().then_some(()));
    }

    fn freeze_at(&mut self, boundary: &'static str) -> Instant {
        self.make_room();
        let passes = self.passes(boundary);
        self.start(&format!("{boundary}={passes}*off->1*return(stop)"));
        let zombie = self.workers.pop().unwrap();
        eventually("the worker freezes at its point", || zombie.is_frozen().then_some(()));
        let began = Instant::now();
        if self.workers.is_empty() {
            self.start("");
        }
        self.wait_for_progress();
        zombie.signal("CONT");
        self.workers.push(zombie);
        began
    }

    /// Nobody takes over, so that the broker itself has to end the transaction.
    fn freeze_all_in_a_transaction(&mut self) -> Instant {
        self.stop_all_at_once();
        let passes = self.random.usize(..6);
        self.start(&format!("after-produce={passes}*off->1*return(stop)"));
        let zombie = self.workers.pop().unwrap();
        eventually("the worker freezes in a transaction", || zombie.is_frozen().then_some(()));
        let began = Instant::now();
        std::thread::sleep(Options::TRANSACTION_TIMEOUT + Duration::from_secs(2));
        zombie.signal("CONT");
        self.workers.push(zombie);
        self.start("");
        began
    }

    fn kill_all(&mut self) {
        self.workers.drain(..).for_each(Process::kill);
    }

    /// Kills all workers, and waits until the group has forgotten them.
    fn stop_all_at_once(&mut self) {
        self.kill_all();
        eventually("the group is empty", || broker::group_is_empty(&self.stream.topic).then_some(()));
    }

    fn restart_workers(&mut self) -> Instant {
        let began = Instant::now();
        self.start("");
        self.start("");
        began
    }

    /// What `kafka-consumer-groups --reset-offsets` does, without albertine's note.
    fn overwrite_offsets(&mut self) {
        let consumer: BaseConsumer =
            broker::config().set("group.id", &*self.stream.topic).set("enable.auto.commit", "false").create().unwrap();
        let mut offsets = TopicPartitionList::new();
        for partition in 0..self.partitions {
            let (low, high) =
                consumer.fetch_watermarks(&self.stream.topic, partition, Duration::from_secs(10)).unwrap();
            let offset = Offset::Offset(self.random.i64(low..=high));
            offsets.add_partition_offset(&self.stream.topic, partition, offset).unwrap();
        }
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
    }

    fn restore_database(&mut self) -> Instant {
        const TABLES: [&str; 7] =
            ["checkpoints", "documents", "labels", "outbox", "item_sums", "item_deltas", "rejections"];
        let database = &self.stream.database;
        let copies: String =
            TABLES.map(|table| format!("CREATE TABLE {{s}}.backup_{table} AS TABLE {{s}}.{table};")).concat();
        database.script(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {copies} COMMIT;"));
        std::thread::sleep(Duration::from_secs(1));
        self.stop_all_at_once();
        let restores: String = TABLES
            .map(|table| {
                format!("TRUNCATE {{s}}.{table}; INSERT INTO {{s}}.{table} SELECT * FROM {{s}}.backup_{table};")
            })
            .concat();
        self.stream.database.script(&format!(
            "BEGIN; ALTER TABLE {{s}}.outbox DISABLE TRIGGER keep_outbox; {restores}
             ALTER TABLE {{s}}.outbox ENABLE TRIGGER keep_outbox; COMMIT;"
        ));
        self.expected.restored = true;
        let began = self.restart_workers();
        let workers = &self.workers;
        eventually("a worker asks for a decision", || {
            workers.iter().any(|worker| worker.log().contains("until you decide")).then_some(())
        });
        let mut decision = self.stream.command(&Options::chaos());
        decision.args(["position", "set", "reviews", "--all", "--published", "keep", "--yes"]);
        let (status, _, error) = output(&mut decision, "");
        assert_eq!(status, Some(0), "{error}");
        began
    }

    /// Everything sent so far is stored first, or it would be lost with the topic; not all of it is published.
    fn recreate_topic(&mut self) -> Instant {
        self.sending.paused.store(true, Ordering::Relaxed);
        std::thread::sleep(PAUSE * 4);
        self.ledger.lock().unwrap().flush();
        let end = broker::end_of(&self.stream.topic, self.partitions);
        self.stream.wait_for_positions(end);
        if self.random.bool() {
            self.kill_all();
        }
        let began = Instant::now();
        broker::recreate_topic(&self.stream.topic, self.partitions);
        while self.workers.len() < 2 {
            self.start("");
        }
        self.sending.paused.store(false, Ordering::Relaxed);
        began
    }

    fn add_partitions(&mut self) -> Instant {
        self.partitions += 2;
        self.expected.repartitioned = true;
        let count = usize::try_from(self.partitions).unwrap();
        let new = NewPartitions::new(&self.stream.topic, count);
        block_on(broker::admin().create_partitions(&[new], &broker::request_options())).unwrap();
        let began = Instant::now();
        // A producer that knows the new partitions.
        self.ledger.lock().unwrap().flush();
        began
    }

    /// Waits until all is stored and seen, stops the workers, and compares.
    fn finish(mut self, faults: Vec<(Fault, Duration)>) -> Report {
        let end = broker::end_of(&self.stream.topic, self.partitions);
        self.stream.wait_for_positions(end);
        let stored = comparison::stored_records(&self.stream.database);
        eventually("everything stored was seen", || {
            self.check_workers();
            self.subscriber.with(|seen| (seen.len() >= stored).then_some(()))
        });
        self.workers.drain(..).for_each(Process::stop);
        // Whatever would come twice has time to come.
        std::thread::sleep(Duration::from_millis(300));
        let ledger = self.ledger.lock().unwrap();
        let (wrong, live_records) = self
            .subscriber
            .with(|seen| (comparison::differences(&self.stream.database, &ledger, seen, self.expected), seen.len()));
        Report { faults, sent: ledger.entries.len(), live_records, wrong }
    }
}
