//! `GET /v3/session/{id}/generate-pdf/`.

use http::{StatusCode, header};

use super::NO_CREDENTIALS;
use crate::{
    answer::{self, Answer},
    call::Call,
    resolve::Params,
    world::World,
};

/// Prints a session on one page. An unknown session is 404 before the key is looked at.
pub(super) fn generate_pdf(world: &World, call: &Call, params: Params) -> Answer {
    let Some(session) = params.session.and_then(|id| world.sessions.get(id)) else {
        return answer::not_found();
    };
    if let Some(refusal) = world.refuse_stranger(call, NO_CREDENTIALS) {
        return refusal;
    }
    let name = format!("attachment; filename=\"session-{}.pdf\"", session.number);
    let page = document(&format!("Session {}", session.id));
    Answer::of_type(StatusCode::OK, "application/pdf", page.into()).header(header::CONTENT_DISPOSITION, &name)
}

/// The smallest PDF with a line of text on it. `line` must not hold parentheses or backslashes.
fn document(line: &str) -> String {
    let text = format!("BT /F1 12 Tf 20 100 Td ({line}) Tj ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 200] /Contents 4 0 R \
         /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{text}\nendstream", text.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut pdf = "%PDF-1.4\n".to_owned();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (object, number) in objects.iter().zip(1..) {
        table += &format!("{:010} 00000 n \n", pdf.len());
        pdf += &format!("{number} 0 obj\n{object}\nendobj\n");
    }
    let trailer = format!("trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{}\n%%EOF\n", objects.len() + 1, pdf.len());
    pdf + &table + &trailer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cross_reference_table_points_at_the_objects() {
        let pdf = document("Session 1");
        let start: usize = pdf.lines().rev().nth(1).unwrap().parse().unwrap();
        assert!(pdf[start..].starts_with("xref\n0 6\n"));
        for (line, number) in pdf[start..].lines().skip(3).take(5).zip(1..) {
            assert_eq!(line.len(), 19);
            let offset: usize = line[..10].parse().unwrap();
            assert!(pdf[offset..].starts_with(&format!("{number} 0 obj")));
        }
    }
}
