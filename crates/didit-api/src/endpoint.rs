//! One route of the API and what a client has to know before calling it.

use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::Method;
use serde::{Deserialize, Serialize};

/// One route: a method and a path template, with everything a layer decides by.
///
/// Didit's own are in [`Routes::didit`](crate::Routes::didit). A user's own are made with [`Endpoint::new`] and
/// added with [`Routes::builder`](crate::Routes::builder).
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use didit_api::{Endpoint, RetryClass, ServiceGroup};
/// use http::Method;
///
/// let endpoint = Endpoint::new("report-create", Method::POST, "/v3/reports/{id}/")
///     .retry(RetryClass::Idempotent)
///     .timeout(Duration::from_secs(20))
///     .group(ServiceGroup::Custom("reports"));
/// assert_eq!(endpoint.name(), "report-create");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    name: Cow<'static, str>,
    method: Method,
    path: Cow<'static, str>,
    retry: RetryClass,
    timeout: Duration,
    group: ServiceGroup,
    limited: bool,
}

impl Endpoint {
    /// The attempt timeout of an endpoint that states none: 30 s.
    ///
    /// Didit publishes no figure of its own; its samples use 10 s for lists and up to 120 s for documents, and 30 s
    /// is the timeout of the one general-purpose client known to work against the API.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

    /// What [`Routes::get`](crate::Routes::get) gives for an id it never gave out: nothing is known, so nothing is
    /// repeated.
    pub(crate) const UNKNOWN: &'static Self = &Self {
        name: Cow::Borrowed("unknown"),
        method: Method::POST,
        path: Cow::Borrowed("/"),
        retry: RetryClass::Unsafe,
        timeout: Self::DEFAULT_TIMEOUT,
        group: ServiceGroup::Core,
        limited: true,
    };

    /// An endpoint that counts against the global limit of its method, belongs to [`ServiceGroup::Core`], times out
    /// after [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT), and is repeated as [`RetryClass::of_method`] says.
    ///
    /// `path` is a template: `{name}` stands for one segment. A final slash is part of the route, as it is at Didit.
    pub fn new(name: impl Into<Cow<'static, str>>, method: Method, path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            retry: RetryClass::of_method(&method),
            method,
            path: path.into(),
            timeout: Self::DEFAULT_TIMEOUT,
            group: ServiceGroup::Core,
            limited: true,
        }
    }

    /// Sets what may be done after a failure that leaves it open whether the call was carried out.
    #[must_use]
    pub fn retry(mut self, class: RetryClass) -> Self {
        self.retry = class;
        self
    }

    /// Sets how long one attempt may be on the wire. [`RoutesBuilder::build`](crate::routes::RoutesBuilder::build)
    /// refuses zero.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the part of Didit that fails as one with this endpoint.
    #[must_use]
    pub fn group(mut self, group: ServiceGroup) -> Self {
        self.group = group;
        self
    }

    /// Says that no rate limit counts this endpoint.
    #[must_use]
    pub fn unlimited(mut self) -> Self {
        self.limited = false;
        self
    }

    /// A short, stable name, used for limits, spans and metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The HTTP method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path template, with `{name}` for each variable segment.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What may be done after an ambiguous failure.
    pub fn retry_class(&self) -> RetryClass {
        self.retry
    }

    /// How long one attempt may be on the wire.
    pub fn attempt_timeout(&self) -> Duration {
        self.timeout
    }

    /// The part of Didit that fails as one with this endpoint.
    pub fn service_group(&self) -> ServiceGroup {
        self.group
    }

    /// Whether any rate limit counts this endpoint.
    pub fn is_limited(&self) -> bool {
        self.limited
    }
}

/// What makes repeating a call safe after a failure that leaves it open whether the call was carried out.
///
/// A call that provably never reached Didit, or that Didit refused unprocessed, may always be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RetryClass {
    /// Reading changes nothing.
    Safe,
    /// The second time has the effect of the first: absolute values, deletions.
    Idempotent,
    /// Didit honours `Idempotency-Key` here: safe with the same key.
    IdempotencyKey,
    /// The body carries an id that Didit accepts once.
    BodyId,
    /// Session creation: an unfinished session with the same `vendor_data` is returned again. Safe if it is given.
    VendorData,
    /// Nothing tells a repetition from a second order: each success bills, or spends one of few attempts.
    Unsafe,
}

impl RetryClass {
    /// The class of a route nothing is known about: RFC 9110 section 9.2 on the method, and nothing else.
    pub fn of_method(method: &Method) -> Self {
        if method.is_safe() {
            Self::Safe
        } else if method.is_idempotent() {
            Self::Idempotent
        } else {
            Self::Unsafe
        }
    }
}

/// The parts of Didit that fail one by one, because a different provider stands behind each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceGroup {
    /// Sessions, users, workflows, webhooks, billing: Didit itself.
    Core,
    /// Reading documents, proof of address included.
    IdVerification,
    /// Faces: match, liveness, age, search.
    Biometrics,
    /// Sanctions and adverse media, wallets included.
    Aml,
    /// Company registries.
    Kyb,
    /// Government and credit databases.
    DatabaseValidation,
    /// Codes by phone.
    Phone,
    /// Codes by e-mail.
    Email,
    /// Transactions, events and the travel rule.
    Transactions,
    /// A group of the user's own; [`ServiceGroup::named`] makes one of a name that is read at run time.
    Custom(&'static str),
}

impl ServiceGroup {
    /// Didit's own groups.
    pub const DIDIT: [Self; 9] = [
        Self::Core,
        Self::IdVerification,
        Self::Biometrics,
        Self::Aml,
        Self::Kyb,
        Self::DatabaseValidation,
        Self::Phone,
        Self::Email,
        Self::Transactions,
    ];

    /// The group of this name: one of [`DIDIT`](Self::DIDIT), or a group of the user's own.
    ///
    /// A name of the user's own is kept for as long as the process lives, once, so that a group can be copied like a
    /// number. It is meant for names out of a configuration, of which there are few, and not for what comes in with
    /// requests.
    pub fn named(name: &str) -> Self {
        static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

        if let Some(known) = Self::DIDIT.into_iter().find(|group| group.name() == name) {
            return known;
        }
        // Nothing panics under the lock, so a poisoned list is as good as any.
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = names.iter().find(|kept| **kept == name).copied();
        Self::Custom(kept.unwrap_or_else(|| {
            let name: &'static str = String::leak(name.to_owned());
            names.push(name);
            name
        }))
    }

    /// A short, stable name, used in errors, spans and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::IdVerification => "id-verification",
            Self::Biometrics => "biometrics",
            Self::Aml => "aml",
            Self::Kyb => "kyb",
            Self::DatabaseValidation => "database-validation",
            Self::Phone => "phone",
            Self::Email => "email",
            Self::Transactions => "transactions",
            Self::Custom(name) => name,
        }
    }
}
