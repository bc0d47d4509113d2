//! The kinds of problems, each with a page of its own at `/problems/KIND`, which is its `type` (RFC 9457).
//!
//! They are stable: clients match on them. A kind is added with its row here.

/// A kind of problem.
#[derive(Debug)]
pub struct Kind {
    /// The last piece of its `type`.
    pub name: &'static str,
    /// The status codes that come with it; none where it stands in a job's `error` alone.
    pub status: &'static str,
    /// What it means.
    pub means: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// All kinds, by name.
pub static KINDS: &[Kind] = &[
    Kind {
        name: "body",
        status: "400, 408, 413",
        means: "The body could not be read to its end or in time, or is longer than what is taken.",
        remedy: "Send at most 4 MiB. A long list of objects belongs in a manifest, which the job names.",
    },
    Kind {
        name: "budget",
        status: "",
        means: "The job may cost more than what is left of its tenant's budget of the month. Nothing of it was run.",
        remedy: "Limit its cost or its bytes, wait until jobs that hold some of the budget have ended, or ask for more.",
    },
    Kind {
        name: "budget-spent",
        status: "402",
        means: "The tenant's budget of the month is spent.",
        remedy: "Wait for the next month, or ask whoever runs the service for more.",
    },
    Kind {
        name: "dataset",
        status: "422",
        means: "The job's dataset can't be searched: it holds nothing, or something that it names is not there.",
        remedy: "Read the detail, correct the dataset and submit another job.",
    },
    Kind {
        name: "dataset-not-allowed",
        status: "403",
        means: "The dataset names what the tenant may not read.",
        remedy: "Name what stands in the tenant's list of datasets, or ask whoever runs the service to add to it.",
    },
    Kind {
        name: "deadline",
        status: "",
        means: "The job's deadline passed while it waited for its turn or for a server, before anything was read.",
        remedy: "Submit it again with more time, or when the service has less to do.",
    },
    Kind {
        name: "hits-expired",
        status: "410",
        means: "The job's hits were kept for as long as this service keeps hits. Its coverage, digest and bill are still there.",
        remedy: "Submit the same job again; next time fetch what you need before the service removes it.",
    },
    Kind {
        name: "idempotency-key",
        status: "400",
        means: "The Idempotency-Key is not valid.",
        remedy: "Send one key, a string of 1 to 255 visible ASCII characters in double quotes: a UUID does.",
    },
    Kind {
        name: "idempotency-key-in-use",
        status: "409",
        means: "A request with the same Idempotency-Key is still under way, and was waited for in vain.",
        remedy: "Repeat the request with the same key after Retry-After: it is answered as the first one was.",
    },
    Kind {
        name: "idempotency-key-reused",
        status: "422",
        means: "The Idempotency-Key was used before for a request with another body. Bodies are compared as parsed \
                JSON. A key is remembered as long as its job, and at least 24 hours.",
        remedy: "Send a new key for a new request, or the same body as before to be told of the job that it made.",
    },
    Kind {
        name: "insufficient-scope",
        status: "403",
        means: "The API key is good, but may not do this.",
        remedy: "Use a key with the scope that the detail names: `dragnet key add` makes one.",
    },
    Kind {
        name: "internal",
        status: "500",
        means: "The service failed. This is its fault.",
        remedy: "Tell whoever runs it; its log says more.",
    },
    Kind {
        name: "invalid",
        status: "400",
        means: "The request is not valid. Where something in the body is wrong, `pointer` (RFC 6901) says where.",
        remedy: "Read the detail and correct the request.",
    },
    Kind {
        name: "invalid-key",
        status: "401",
        means: "The API key is not one of this service: it is mistyped, unknown, expired or revoked.",
        remedy: "Send another key. Never repeat the request with the same one.",
    },
    Kind {
        name: "limits",
        status: "422",
        means: "A limit of the job can't be kept in advance with the rates of this service.",
        remedy: "Leave the limit out, or give another.",
    },
    Kind {
        name: "media-type",
        status: "415",
        means: "The body's media type or content coding is not taken.",
        remedy: "Send JSON in UTF-8 as `Content-Type: application/json`, without a content coding.",
    },
    Kind {
        name: "method-not-allowed",
        status: "405",
        means: "The path has no such method.",
        remedy: "Use one of those that `Allow` names.",
    },
    Kind {
        name: "no-key",
        status: "401",
        means: "The service has tenants, so it must know for whom you ask.",
        remedy: "Send `Authorization: Bearer dnk_…`: `dragnet key add` makes a key.",
    },
    Kind {
        name: "no-such-event",
        status: "404",
        means: "The group was never sent an event of this id.",
        remedy: "Confirm events by the id with which they were published.",
    },
    Kind {
        name: "no-such-job",
        status: "404",
        means: "There is no job of this id, or it is another tenant's.",
        remedy: "List your jobs at `/v1/jobs`.",
    },
    Kind {
        name: "not-acceptable",
        status: "406",
        means: "`Accept` names no media type that can be had here.",
        remedy: "Ask for one that the detail names, or leave `Accept` out.",
    },
    Kind {
        name: "not-found",
        status: "404",
        means: "There is nothing at this path.",
        remedy: "See `/docs` for what there is.",
    },
    Kind {
        name: "not-local",
        status: "403",
        means: "The service has no tenants, so it serves this machine alone, and the request names another host or comes from another site's page.",
        remedy: "Ask for it as 127.0.0.1 or localhost; or define a tenant and use a key.",
    },
    Kind {
        name: "not-ready",
        status: "409",
        means: "What is asked for is known later in the job's life.",
        remedy: "Ask again after Retry-After.",
    },
    Kind {
        name: "nothing-searched",
        status: "",
        means: "The job has ended and nothing of its dataset could be searched.",
        remedy: "Its coverage names what was lost and why.",
    },
    Kind {
        name: "other-ledger",
        status: "409",
        means: "The cursor of usage stands behind a line that is not in this ledger: the service was put back from a backup.",
        remedy: "Read again with the cursor `0`. What has arrived before has the same id when it comes again.",
    },
    Kind {
        name: "quota-bytes",
        status: "",
        means: "The job is larger than what its tenant may have.",
        remedy: "Search less at once, or ask whoever runs the service for more.",
    },
    Kind {
        name: "quota-exceeded",
        status: "429",
        means: "The tenant has as many jobs as it may have that have not ended.",
        remedy: "Wait until some have ended, as Retry-After says, or cancel some.",
    },
    Kind {
        name: "quota-submissions",
        status: "429",
        means: "The tenant submits faster than it may.",
        remedy: "Repeat the request after Retry-After; `RateLimit` says what is left.",
    },
    Kind {
        name: "too-many-counts",
        status: "422",
        means: "The job's hits come to more different things than the service counts.",
        remedy: "Take the hits page by page and count them yourself, or count by something coarser, such as the host.",
    },
    Kind {
        name: "too-many-watchers",
        status: "503",
        means: "As many clients follow events or wait for jobs as this process serves at once.",
        remedy: "Ask again after Retry-After, or look at the job from time to time.",
    },
    Kind {
        name: "unavailable",
        status: "503",
        means: "The service can't reach what it needs to answer. Nothing of the request was done.",
        remedy: "Repeat the request after Retry-After.",
    },
];

/// The kind of a name.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_in_order_and_once() {
        assert!(KINDS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
