//! The id that a topic was created with: what tells a topic that was deleted and made again from the one
//! before it, which had the same name. And what this user may do with the topic, which comes with the same answer.
//!
//! `rdkafka` has no safe call for either, so this file makes librdkafka's own, `DescribeTopics`. It is the only
//! file with unsafe code, and nothing unsafe leaves it: every object of librdkafka is in an `Owned`, which
//! frees it on every path. It remembers no ids, never creates a topic, and does not try again.

#![expect(unsafe_code, reason = "rdkafka has no safe call for a topic's id and rights")]

use std::{
    ffi::{CStr, CString, c_char, c_int},
    ptr::{self, NonNull},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    bindings::{
        rd_kafka_AclOperation_t, rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new,
        rd_kafka_AdminOptions_set_include_authorized_operations, rd_kafka_AdminOptions_set_request_timeout,
        rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
        rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_authorized_operations,
        rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_t, rd_kafka_TopicDescription_topic_id,
        rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits, rd_kafka_error_code,
        rd_kafka_error_destroy, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error,
        rd_kafka_event_error_string, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
    },
    client::Client,
    error::RDKafkaErrorCode,
    types::{RDKafkaAdminOp, RDKafkaEvent},
};

/// The longest time that librdkafka allows a request; it refuses a longer one.
const TIMEOUT_MS_MAX: c_int = 60 * 60 * 1000;

/// The alphabet of Kafka's `Uuid`, which is that of file names and URLs. librdkafka's own
/// `rd_kafka_Uuid_base64str` writes `+` and `/` for the last two.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A topic could not be asked about.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask about topic `{topic}`: {cause}")]
pub struct TopicIdError {
    pub topic: String,
    pub cause: Cause,
}

/// Why a topic could not be asked about.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// No broker could be reached, or the one that was asked is slow. A later call may be answered.
    #[error("no broker answered within {0:?}")]
    Unanswered(Duration),
    /// The broker does not tell this user, or no topic can have this name.
    #[error("the broker answered `{code}`{remedy}")]
    Refused { code: RDKafkaErrorCode, remedy: &'static str },
    /// The topic exists, and the broker gives it no id.
    #[error(
        "the broker gives topics no ids; every broker of the cluster and its `inter.broker.protocol.version` need \
         to be 2.8 or later"
    )]
    WithoutIds,
    /// The request failed as a whole: the connection broke, librdkafka refused it, or the answer makes no sense.
    #[error("{reason} (`{code}`)")]
    Failed { code: RDKafkaErrorCode, reason: String },
}

/// The id of a topic, as Kafka's tools print it: 22 characters of base64. `None` where there is no such topic.
///
/// A topic keeps its id as long as it exists, and no other topic ever has it. The answer is what one broker
/// knows, which learns of a deletion or a creation a moment after the request for it was answered.
///
/// It blocks the thread for up to `timeout`, taken as at least a millisecond and at most an hour. It needs
/// nobody to poll the client meanwhile, so that it may be called in the client's own callbacks.
///
/// # Errors
/// [`TopicIdError`], whose cause is [`Cause::Unanswered`] where no answer came in time, [`Cause::Refused`] where
/// the user lacks `Describe` on the topic (whether or not it exists) or the broker allows no such name,
/// [`Cause::WithoutIds`] where the cluster is older than topic ids, and [`Cause::Failed`] for all else.
pub fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, TopicIdError> {
    let read = || match described(&describe(client, topic, timeout)?)? {
        None => Ok(None),
        Some(Described { id: 0, .. }) => Err(Cause::WithoutIds),
        Some(described) => Ok(Some(base64(described.id))),
    };
    read().map_err(|cause| TopicIdError { topic: topic.into(), cause })
}

/// What a user may do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicRights {
    pub read: bool,
    pub write: bool,
}

/// What this user may do with a topic: everything where the broker checks nobody, or does not tell (before 2.3). `None`
/// where there is no such topic.
///
/// It blocks as [`topic_id`] does.
///
/// # Errors
/// [`TopicIdError`] where no answer came in time, or the user lacks `Describe` on the topic.
pub fn topic_rights<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<TopicRights>, TopicIdError> {
    let read = || Ok(described(&describe(client, topic, timeout)?)?.map(|described| described.rights));
    read().map_err(|cause| TopicIdError { topic: topic.into(), cause })
}

/// Asks for the topic's description and waits for the event that holds it.
fn describe<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Owned<RDKafkaEvent>, Cause> {
    let name = CString::new(topic).map_err(|_| Cause::Failed {
        code: RDKafkaErrorCode::InvalidTopic,
        reason: "no topic has a NUL character in its name".into(),
    })?;
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(TIMEOUT_MS_MAX).clamp(1, TIMEOUT_MS_MAX);
    let client = client.native_ptr();
    // SAFETY: the client lives until this function returns, and librdkafka's clients may be used from any
    // thread. The queue is new and ours, so it is freed once, and before the client.
    let queue = unsafe { Owned::new(rd_kafka_queue_new(client), rd_kafka_queue_destroy) }?;
    // SAFETY: the client lives, as above. The options are new and ours.
    let options = unsafe {
        let for_api = RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        Owned::new(rd_kafka_AdminOptions_new(client, for_api), rd_kafka_AdminOptions_destroy)
    }?;
    // The request ends when nobody waits for it any more.
    // SAFETY: the options live. A buffer of length 0 for the error's text may be null.
    let set = unsafe { rd_kafka_AdminOptions_set_request_timeout(options.pointer(), timeout_ms, ptr::null_mut(), 0) };
    debug_assert_eq!(RDKafkaErrorCode::from(set), RDKafkaErrorCode::NoError, "{timeout_ms} ms is in range");
    // SAFETY: the options live. The error is null or ours.
    let refused = unsafe {
        Owned::new(
            rd_kafka_AdminOptions_set_include_authorized_operations(options.pointer(), 1),
            rd_kafka_error_destroy,
        )
    };
    debug_assert!(refused.is_err(), "`DescribeTopics` takes this option");
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    // SAFETY: `names` is an array of one C string. It is copied, and the collection is new and ours.
    let topics = unsafe {
        let collection = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        Owned::new(collection, rd_kafka_TopicCollection_destroy)
    }?;
    // SAFETY: all four live. The topics and the options are copied; of the queue the request keeps a counted
    // reference, and once the queue is freed an answer that comes too late is dropped.
    unsafe { rd_kafka_DescribeTopics(client, topics.pointer(), options.pointer(), queue.pointer()) };
    // SAFETY: the queue lives. The event is null or ours. It refers to neither queue nor options.
    let event = unsafe { Owned::new(rd_kafka_queue_poll(queue.pointer(), timeout_ms), rd_kafka_event_destroy) };
    let event = event.map_err(|Null| Cause::Unanswered(timeout))?;
    match failure(&event) {
        Some((RDKafkaErrorCode::OperationTimedOut, _)) => Err(Cause::Unanswered(timeout)),
        Some((code, reason)) => Err(Cause::Failed { code, reason }),
        None => Ok(event),
    }
}

/// Why the request failed as a whole, if it did.
fn failure(event: &Owned<RDKafkaEvent>) -> Option<(RDKafkaErrorCode, String)> {
    // SAFETY: the event lives. Its code is librdkafka's own or one that brokers send with `Metadata`; the
    // bindings, made from the same release, have a variant for each.
    let code = RDKafkaErrorCode::from(unsafe { rd_kafka_event_error(event.pointer()) });
    if code == RDKafkaErrorCode::NoError {
        return None;
    }
    // SAFETY: the text is a C string, never null, that lives as long as the event; it is copied at once.
    let reason = unsafe { CStr::from_ptr(rd_kafka_event_error_string(event.pointer())) };
    Some((code, reason.to_string_lossy().into_owned()))
}

/// What an answer tells of a topic.
struct Described {
    /// 0 from a broker without ids.
    id: u128,
    rights: TopicRights,
}

/// What the answer tells; `None` where there is no such topic.
fn described(event: &Owned<RDKafkaEvent>) -> Result<Option<Described>, Cause> {
    let description = description(event).ok_or_else(|| Cause::Failed {
        code: RDKafkaErrorCode::BadMessage,
        reason: "the answer does not tell of the topic".into(),
    })?;
    // SAFETY: `description` is a reference into the living event. A null error is the code `NO_ERROR`; for
    // the others see `failure`.
    let code = unsafe { rd_kafka_error_code(rd_kafka_TopicDescription_error(description)) };
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => {}
        RDKafkaErrorCode::UnknownTopicOrPartition => return Ok(None),
        code => return Err(Cause::Refused { code, remedy: remedy(code) }),
    }
    // SAFETY: the id is part of the description, so it is never null and lives as long.
    let (high, low) = unsafe {
        let id = rd_kafka_TopicDescription_topic_id(description);
        (rd_kafka_Uuid_most_significant_bits(id), rd_kafka_Uuid_least_significant_bits(id))
    };
    let id = u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned());
    Ok(Some(Described { id, rights: rights(description) }))
}

/// The operations that the description allows.
fn rights(description: &rd_kafka_TopicDescription_t) -> TopicRights {
    let mut count = 0;
    // SAFETY: the description lives.
    let operations = unsafe { rd_kafka_TopicDescription_authorized_operations(description, &raw mut count) };
    let operations: &[rd_kafka_AclOperation_t] = if operations.is_null() || count == 0 {
        &[]
    } else {
        // SAFETY: the array has `count` operations, and lives and does not change as long as the description. librdkafka
        // makes them from the bits that it knows, so each is a variant.
        unsafe { std::slice::from_raw_parts(operations, count) }
    };
    // Whoever may see a topic has at least `Describe`: a broker that lists nothing does not tell.
    let may = |operation| operations.is_empty() || operations.contains(&operation);
    TopicRights {
        read: may(rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ),
        write: may(rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE),
    }
}

/// The description of the one topic that was asked for.
fn description(event: &Owned<RDKafkaEvent>) -> Option<&rd_kafka_TopicDescription_t> {
    // SAFETY: the event lives, and is looked at as what it is: the result of another request is null.
    let result = NonNull::new(unsafe { rd_kafka_event_DescribeTopics_result(event.pointer()) }.cast_mut())?;
    let mut count = 0;
    // SAFETY: the result is the event, which lives. That of a request that failed has no topics.
    let descriptions = unsafe { rd_kafka_DescribeTopics_result_topics(result.as_ptr(), &raw mut count) };
    if count == 0 {
        return None;
    }
    // SAFETY: the array has `count` pointers, so at least one, each null or to a description that lives and
    // does not change as long as the event, which is what the result borrows.
    unsafe { (*descriptions).as_ref() }
}

fn remedy(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => "; grant Describe on the topic to this user",
        _ => "",
    }
}

/// Base64 of the id's sixteen bytes, the most significant first, without padding.
fn base64(id: u128) -> String {
    let sextet = |shift: i32| if shift < 0 { id << -shift } else { id >> shift } & 0x3f;
    (0..22).map(|index| char::from(ALPHABET[sextet(122 - 6 * index) as usize])).collect()
}

/// An object of librdkafka that is ours to free.
struct Owned<T> {
    pointer: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

/// librdkafka made no object.
struct Null;

impl From<Null> for Cause {
    fn from(_: Null) -> Self {
        let reason = "the Kafka client cannot make a request".into();
        Self::Failed { code: RDKafkaErrorCode::CriticalSystemResource, reason }
    }
}

impl<T> Owned<T> {
    /// Takes over an object.
    ///
    /// # Safety
    /// `pointer` is null, or nobody else frees its object and `free` may, whenever this is dropped.
    unsafe fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Result<Self, Null> {
        NonNull::new(pointer).map(|pointer| Self { pointer, free }).ok_or(Null)
    }

    /// The object, which lives as long as this.
    fn pointer(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: by the contract of `new`, and a value is dropped once.
        unsafe { (self.free)(self.pointer.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn ids_are_written_as_kafka_writes_them() {
        // The first three are `Uuid.ZERO_UUID`, `Uuid.ONE_UUID` and what has every bit.
        assert_eq!(base64(0), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64(1), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(base64(u128::MAX), "_____________________w");
        assert_eq!(base64(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), "ABEiM0RVZneImaq7zN3u_w");
        assert_eq!(base64(0xfbef_be00_0000_0000_8000_0000_0000_0000), "----AAAAAACAAAAAAAAAAA");
    }
}
