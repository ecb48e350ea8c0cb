use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn line(style: Style, fields: impl Fn(&mut Render<'_>)) -> (String, Range<usize>) {
    let (mut out, mut scratch) = (String::new(), String::new());
    let mut render = Render::begin(&mut out, &mut scratch, style, UNIX_EPOCH, LogLevel::Info, "quarterdeck");
    fields(&mut render);
    let context = [Some("req-1".into()), None, None];
    let event = render.end("quarterdeck", "fallback", &context);
    (out, event)
}

#[test]
fn a_json_line_carries_time_level_logger_event_fields_and_context() {
    let (line, event) = line(Style::Json, |render| {
        render.text("message", "api.request.started");
        render.text("path", "/api/v1/health");
        render.number("status_code", 200);
    });
    assert_eq!(
        line,
        concat!(
            r#"{"timestamp":"1970-01-01T00:00:00.000000Z","level":"INFO","logger":"quarterdeck","#,
            r#""event":"api.request.started","path":"/api/v1/health","status_code":200,"request_id":"req-1"}"#,
            "\n"
        )
    );
    assert_eq!(&line[event], "api.request.started");
}

#[test]
fn a_human_line_begins_with_the_event_whatever_came_first() {
    let (line, event) = line(Style::Human { colour: false }, |render| {
        render.text("path", "/a b\u{1b}[2J");
        render.text("message", "api.request.started");
        render.number("status_code", 200);
    });
    assert_eq!(
        line,
        "1970-01-01T00:00:00.000000Z INFO     api.request.started path=\"/a b\\u001b[2J\" \
         status_code=200 request_id=req-1 quarterdeck\n"
    );
    assert_eq!(&line[event], "api.request.started");
}

#[test]
fn an_event_without_a_message_gets_the_name_of_its_call_site() {
    let (line, event) = line(Style::Json, |render| render.number("a", 1));
    assert_eq!(&line[event], "fallback");
}

#[test]
fn colours_surround_only_level_and_logger() {
    let (line, _) = line(Style::Human { colour: true }, |render| render.text("message", "m"));
    assert!(
        line.contains("\x1b[32mINFO    \x1b[0m m request_id=req-1 \x1b[2mquarterdeck\x1b[0m\n"),
        "{line:?}"
    );
}

#[test]
fn a_field_cannot_pose_as_a_part_of_the_line_and_its_own_id_wins() {
    let (line, _) = line(Style::Json, |render| {
        render.text("level", "x");
        render.text("request_id", "own");
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["field_level"], "x");
    assert_eq!(line["request_id"], "own");
}

#[test]
fn values_under_telling_keys_are_replaced_except_counts_and_the_head_of_a_session_id() {
    let (line, _) = line(Style::Json, |render| {
        render.text("auth.api_key", "hunter2");
        render.number("token", 4711);
        render.number("tokens_used", 12);
        render.text("session_id", "0123456789abcdef");
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["auth.api_key"], REDACTED);
    assert_eq!(line["token"], REDACTED);
    assert_eq!(line["tokens_used"], 12);
    assert_eq!(line["session_id"], "01234567");
}

#[test]
fn a_huge_value_is_cut_at_a_character_and_marked() {
    let huge = "é".repeat(VALUE_LIMIT);
    let (line, _) = line(Style::Json, |render| {
        render.formatted("a", format_args!("x{huge}"));
        render.text("b", &huge);
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["a"].as_str().unwrap().len(), VALUE_LIMIT - 1);
    assert_eq!(line["b"].as_str().unwrap().len(), VALUE_LIMIT);
    assert_eq!(line["cut"], true);
}

proptest! {
    #[test]
    fn every_number_of_hundredths_reads_as_display_writes_it(whole in 0..1_000_000_000_000_000_u64) {
        let value = whole as f64 / 100.0;
        prop_assert_eq!(hundredths(value), Some(whole));
        decimal_reads_as_displayed(value);
    }

    #[test]
    fn any_text_in_any_place_makes_one_line_of_valid_json(
        name in any::<String>(), value in any::<String>(), message in any::<String>(), number in any::<f64>()
    ) {
        let (json, event) = line(Style::Json, |render| {
            render.text(&name, &value);
            render.text("message", &message);
            if number.is_finite() { render.number("n", number); }
            render.text("path", &value);
        });
        prop_assert_eq!(json.find('\n'), Some(json.len() - 1));
        prop_assert!(json.get(event).is_some());
        let parsed: Value = serde_json::from_str(&json).unwrap();
        prop_assert!(parsed["path"].is_string());
        let (human, _) = line(Style::Human { colour: false }, |render| {
            render.text(&name, &value);
            render.text("message", &message);
        });
        prop_assert_eq!(human.find(char::is_control), Some(human.len() - 1));
    }
}

#[test]
fn decimals_read_as_display_writes_them() {
    for value in [0.0, -0.0, 0.5, 12.0, 0.01, 0.1, 1.005, 99.99, 1e13, 123_456_789_012_345.6, 1e300, -3.25] {
        decimal_reads_as_displayed(value);
    }
}

fn decimal_reads_as_displayed(value: f64) {
    if let Some(hundredths) = hundredths(value) {
        let mut out = String::new();
        decimal(&mut out, hundredths);
        assert_eq!(out, value.to_string());
    }
}
