//! Which scopes count which request, worked out once.

use http::Method;

use super::Limits;
use crate::EndpointId;

/// Names one scope of one [`Limits`](super::Limits); an index into [`Limits::scopes`](super::Limits::scopes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeId(pub(super) u8);

// ===== impl ScopeId =====

impl ScopeId {
    /// The scope at a place, `None` if no [`ScopeSet`] can hold so many. Places behind those of all limits are free: for
    /// scopes that somebody keeps beside them.
    pub fn at(index: usize) -> Option<Self> {
        u8::try_from(index).ok().filter(|_| index < Limits::MAX_SCOPES).map(Self)
    }

    /// The scope's place in [`Limits::scopes`](super::Limits::scopes).
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The scopes that count one request, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(u64);

// ===== impl ScopeSet =====

impl ScopeSet {
    /// No scope: nothing counts the request.
    pub const EMPTY: Self = Self(0);

    /// Adds a scope.
    pub fn insert(&mut self, id: ScopeId) {
        self.0 |= 1 << id.0;
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a scope is in the set.
    pub fn contains(self, id: ScopeId) -> bool {
        self.0 & (1 << id.0) != 0
    }

    /// The scopes in the set, in order.
    pub fn iter(self) -> impl Iterator<Item = ScopeId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let id = u8::try_from(rest.trailing_zeros()).ok().filter(|_| rest != 0)?;
            rest &= rest - 1;
            Some(ScopeId(id))
        })
    }
}

/// Which scopes count which request, worked out once by [`Limits::table`](super::Limits::table).
#[derive(Clone, Debug)]
pub struct ScopeTable {
    pub(super) endpoints: Vec<ScopeSet>,
    pub(super) methods: Vec<(ScopeSet, Method)>,
}

// ===== impl ScopeTable =====

impl ScopeTable {
    /// The scopes that count a request: those of its endpoint, or those of its method if the path is not known.
    pub fn of(&self, endpoint: Option<EndpointId>, method: &Method) -> ScopeSet {
        match endpoint.and_then(|id| self.endpoints.get(id.index())) {
            Some(scopes) => *scopes,
            None => self.methods.iter().find(|(_, known)| known == method).map_or(ScopeSet::EMPTY, |(set, _)| *set),
        }
    }
}
