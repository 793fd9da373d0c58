//! A tree of path segments.
//!
//! Why not matchit, which axum routes with: it notes down every place where a variable lost against a static segment,
//! in a vector, and so allocates for `/v3/sessions/delete/` beside `/v3/sessions/{id}/reviews/`; and it refuses a
//! `{*rest}` beside a variable. Here a look-up walks down by segments and back on its own stack.

use http::Method;

use super::EndpointId;

/// One segment of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'t> {
    Static(&'t str),
    /// Stands for one segment that is not empty.
    Variable,
    /// Stands for all that is left, if that is not empty.
    Rest,
}

/// One node: what may follow, and who answers if nothing does.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// The keys of `statics`, sorted and side by side, so that the search stays within a few cache lines.
    keys: Vec<u64>,
    statics: Vec<(Box<[u8]>, Tree)>,
    variable: Option<Box<Tree>>,
    rest: ByMethod,
    here: ByMethod,
}

/// The endpoints that share one path: never more than a handful, so a scan beats a map.
#[derive(Clone, Debug, Default)]
pub(super) struct ByMethod(Vec<(Method, EndpointId)>);

/// The deepest template. A look-up goes as deep into the stack; Didit's deepest route has 8 segments.
const MAX_SEGMENTS: usize = 64;

/// Takes a template apart, or says why no request could match it.
pub(super) fn segments(template: &str) -> Result<Vec<Segment<'_>>, &'static str> {
    let path = template.strip_prefix('/').ok_or("a path starts with a slash")?;
    if path.contains(['?', '#']) {
        return Err("a path ends before the query");
    }
    let segments = path.split('/').map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
    let rests = segments.iter().filter(|segment| **segment == Segment::Rest).count();
    if rests > 1 || (rests == 1 && segments.last() != Some(&Segment::Rest)) {
        return Err("{*name} is the last segment or none");
    }
    if segments.len() > MAX_SEGMENTS {
        return Err("more than 64 segments");
    }
    Ok(segments)
}

// ===== impl Segment =====

impl<'t> Segment<'t> {
    fn parse(text: &'t str) -> Result<Self, &'static str> {
        let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            let bare = !text.contains(['{', '}']);
            return if bare { Ok(Self::Static(text)) } else { Err("braces stand around a whole segment") };
        };
        let (kind, name) = name.strip_prefix('*').map_or((Self::Variable, name), |name| (Self::Rest, name));
        match name {
            "" => Err("a variable has a name"),
            _ if name.contains(['{', '}', '*']) => Err("a variable's name has no braces and no star"),
            _ => Ok(kind),
        }
    }
}

// ===== impl Tree =====

impl Tree {
    /// Adds an endpoint under a template's segments.
    pub(super) fn insert(&mut self, segments: &[Segment<'_>], method: Method, id: EndpointId) {
        match segments {
            [] => self.here.0.push((method, id)),
            [Segment::Rest, ..] => self.rest.0.push((method, id)),
            [Segment::Variable, others @ ..] => self.variable.get_or_insert_default().insert(others, method, id),
            [Segment::Static(name), others @ ..] => {
                let name = name.as_bytes();
                let place = self.place(name).unwrap_or_else(|place| {
                    self.keys.insert(place, key(name));
                    self.statics.insert(place, (name.into(), Self::default()));
                    place
                });
                self.statics[place].1.insert(others, method, id);
            }
        }
    }

    /// Who shares a path: a static segment goes before a variable, a variable before the rest.
    ///
    /// `path` is what follows a slash. Every node is entered once at most, whatever the path.
    pub(super) fn find(&self, path: &[u8]) -> Option<&ByMethod> {
        let (segment, below) = match path.iter().position(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => (path, None),
        };
        let fixed = self.place(segment).ok().map(|place| &self.statics[place].1);
        let variable = self.variable.as_deref().filter(|_| !segment.is_empty());
        for node in fixed.into_iter().chain(variable) {
            let found = match below {
                Some(below) => node.find(below),
                None => node.here.known(),
            };
            if found.is_some() {
                return found;
            }
        }
        self.rest.known().filter(|_| !path.is_empty())
    }

    /// Where a segment stands, or where it belongs.
    fn place(&self, segment: &[u8]) -> Result<usize, usize> {
        let key = key(segment);
        let start = self.keys.partition_point(|known| *known < key);
        let alike = self.keys[start..].iter().take_while(|known| **known == key).count();
        // Comparing nothing with nothing costs a call, and 70 ns where memcmp masks its loads: measured.
        let same = |name: &[u8]| name.len() == segment.len() && (segment.is_empty() || name == segment);
        (start..start + alike).find(|place| same(&self.statics[*place].0)).ok_or(start)
    }
}

/// Both ends of a segment and its length in one number, which tells most segments apart without comparing them.
fn key(segment: &[u8]) -> u64 {
    let ends = if let (Some(first), Some(last)) = (segment.first_chunk(), segment.last_chunk()) {
        u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(23)
    } else if let (Some(first), Some(last)) = (segment.first_chunk(), segment.last_chunk()) {
        u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
    } else {
        segment.iter().fold(0, |ends, byte| ends << 8 | u64::from(*byte))
    };
    // A length is at most that of a path; the product spreads it over all bits.
    ends ^ (segment.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

// ===== impl ByMethod =====

impl ByMethod {
    pub(super) fn get(&self, method: &Method) -> Option<EndpointId> {
        self.0.iter().find(|(known, _)| known == method).map(|(_, id)| *id)
    }

    fn known(&self) -> Option<&Self> {
        (!self.0.is_empty()).then_some(self)
    }
}
