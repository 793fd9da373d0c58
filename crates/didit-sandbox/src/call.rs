//! A request, read whole.

use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Uri, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyDataStream, BodyExt, Full};
use serde_json::Value;

/// The largest body that is read: 32 MiB, twice Didit's largest upload.
const LARGEST_BODY: usize = 32 * 1024 * 1024;

/// A request with its body in memory.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The fields of a multipart form, in order; empty for anything else.
    pub(crate) form: Vec<Field>,
}

/// One field of a multipart form.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) value: Bytes,
}

/// Why a request could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The body ended in an error, as it does when a client goes away.
    Broken,
    /// The body is larger than the sandbox reads.
    TooLarge,
}

impl Call {
    pub(crate) async fn read<B: Body>(parts: Parts, body: B) -> Result<Self, Unreadable> {
        let body = collect(body).await?;
        let form = read_form(&parts.headers, &body).await;
        Ok(Self { method: parts.method, uri: parts.uri, headers: parts.headers, body, form })
    }

    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    /// A header's text, if it is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn content_type(&self) -> &str {
        self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn is_json(&self) -> bool {
        self.content_type().split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    }

    pub(crate) fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Bytes> {
        self.form.iter().find(|field| field.name == name).map(|field| &field.value)
    }

    /// A form field's text, if it is text.
    pub(crate) fn field_text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.field(name)?).ok()
    }

    /// The query's parameters, decoded and in order.
    pub(crate) fn query(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
    }

    /// The operation that the request says it belongs to: `metadata.operation_id`, else `X-Operation-Id`.
    pub(crate) fn operation(&self, metadata: &Value) -> Option<String> {
        let in_metadata = metadata.get("operation_id").and_then(Value::as_str);
        in_metadata.or_else(|| self.text("x-operation-id")).map(str::to_owned)
    }
}

async fn collect<B: Body>(body: B) -> Result<Bytes, Unreadable> {
    let mut body = pin!(body);
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(|_| Unreadable::Broken)?.into_data() else { continue };
        if first.len() + rest.len() + data.remaining() > LARGEST_BODY {
            return Err(Unreadable::TooLarge);
        }
        let piece = data.copy_to_bytes(data.remaining());
        // One piece is the common case and is not copied.
        match (first.is_empty(), rest.is_empty()) {
            (true, true) => first = piece,
            (_, true) => {
                rest.extend_from_slice(&first);
                rest.extend_from_slice(&piece);
                first = Bytes::new();
            }
            (_, false) => rest.extend_from_slice(&piece),
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The fields of a multipart body; none if it is not one, or is damaged.
async fn read_form(headers: &HeaderMap, body: &Bytes) -> Vec<Field> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Ok(boundary) = multer::parse_boundary(content_type) else { return Vec::new() };
    let mut parts = multer::Multipart::new(BodyDataStream::new(Full::new(body.clone())), boundary);
    let mut form = Vec::new();
    while let Ok(Some(part)) = parts.next_field().await {
        let name = part.name().unwrap_or_default().to_owned();
        let Ok(value) = part.bytes().await else { return Vec::new() };
        form.push(Field { name, value });
    }
    form
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    async fn read(request: Request<Full<Bytes>>) -> Result<Call, Unreadable> {
        let (parts, body) = request.into_parts();
        Call::read(parts, body).await
    }

    #[tokio::test]
    async fn a_multipart_form_is_read_into_fields() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"vendor_data\"\r\n\r\nu\r\n--b\r\n\
            Content-Disposition: form-data; name=\"front_image\"; filename=\"a.png\"\r\n\r\npng\r\n--b--\r\n";
        let request = Request::post("/")
            .header("content-type", "multipart/form-data; boundary=b")
            .body(Full::from(body))
            .unwrap();
        let call = read(request).await.unwrap();
        assert_eq!(call.field_text("vendor_data"), Some("u"));
        assert_eq!(call.field("front_image").map(Bytes::len), Some(3));
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_not_read() {
        let body = Full::from(vec![0; LARGEST_BODY + 1]);
        assert_eq!(read(Request::new(body)).await.unwrap_err(), Unreadable::TooLarge);
    }
}
