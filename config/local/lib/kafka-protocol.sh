# shellcheck shell=bash
# The four requests of Kafka's protocol that the scripts need, spoken over /dev/tcp: a JVM tool would take
# one or two seconds for each. Plain text only (no TLS, no SASL), which is what the local broker speaks.
# Sourced. Formats: https://kafka.apache.org/protocol

# hex16 N, hex32 N, hex_string S: big-endian integers and length-prefixed strings, as hexadecimal digits
hex16() { printf '%04x' "$1"; }
hex32() { printf '%08x' "$1"; }
hex_string() {
  hex16 "${#1}"
  printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n'
}

hex_array_of_strings() {
  local name
  hex32 $#
  for name in "$@"; do hex_string "$name"; done
}

# kafka_call HOST:PORT API_KEY VERSION BODY: prints the response after its length, as hexadecimal digits
kafka_call() {
  local header size
  # Correlation id 7, no client id.
  header="$(hex16 "$2")$(hex16 "$3")00000007ffff"
  exec 7<>"/dev/tcp/${1%:*}/${1##*:}"
  printf '%b' "$(printf '%s' "$(hex32 $(((${#header} + ${#4}) / 2)))$header$4" | sed 's/../\\x&/g')" >&7
  size="$(timeout 30 head -c 4 <&7 | od -An -v -tx1 | tr -d ' \n')"
  timeout 30 head -c "$((16#${size:-0}))" <&7 | od -An -v -tx1 | tr -d ' \n'
  exec 7>&-
}

# kafka_answers HOST:PORT: a broker there answers an ApiVersions request
kafka_answers() { [[ "$(kafka_call "$1" 18 0 '' 2>/dev/null)" == 00000007* ]]; }

# kafka_delete_topics HOST:PORT TOPIC…: returns when the broker knows them no more; missing ones are fine
kafka_delete_topics() {
  local address=$1 answer topic
  shift
  # DeleteTopics version 1, with 30 s for the controller. Errors other than 3 (unknown topic) count.
  answer="$(kafka_call "$address" 20 1 "$(hex_array_of_strings "$@")$(hex32 30000)")"
  for topic in "$@"; do
    case "$answer" in
      *"$(hex_string "$topic")"0000* | *"$(hex_string "$topic")"0003*) ;;
      *) echo "the broker would not delete topic $topic: ${answer:-no answer}" >&2 && return 1 ;;
    esac
    until kafka_topic_is_gone "$address" "$topic"; do sleep 0.02; done
  done
}

# kafka_create_topic HOST:PORT TOPIC PARTITIONS: one replica, since it is for a broker that stands alone
kafka_create_topic() {
  local body answer
  # CreateTopics version 2: no explicit assignment, no configuration, 30 s, not only validating.
  body="00000001$(hex_string "$2")$(hex32 "$3")$(hex16 1)0000000000000000$(hex32 30000)00"
  answer="$(kafka_call "$1" 19 2 "$body")"
  if [[ "$answer" != *"$(hex_string "$2")"0000* ]]; then
    echo "the broker would not create topic $2: ${answer:-no answer}" >&2
    return 1
  fi
}

# Metadata version 4 without creation; in the answer error 3 stands before the name of an unknown topic.
kafka_topic_is_gone() {
  [[ "$(kafka_call "$1" 3 4 "$(hex_array_of_strings "$2")00")" == *0003"$(hex_string "$2")"* ]]
}
