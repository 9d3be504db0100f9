//! The table of functions: the accessible view of the graph, and the only one without JavaScript.

use maud::{Markup, html};

use super::TopRow;

/// The columns: the key that the script sorts by, the heading, and the class of its cells.
const COLUMNS: [(&str, &str, &str); 6] = [
    ("name", "Function", ""),
    ("self", "Self", "num"),
    ("self", "Self %", "num"),
    ("total", "Total", "num"),
    ("total", "Total %", "num"),
    ("source", "Source", "src"),
];

/// The table with the heaviest functions; the script replaces the rows by all of them.
pub(super) fn section(rows: &[TopRow]) -> Markup {
    html! {
        section #functions aria-label="Functions" {
            div #pane {
                table #table {
                    thead {
                        tr {
                            @for (key, heading, class) in COLUMNS {
                                th scope="col" class=(class) data-key=(key) { (heading) }
                            }
                        }
                    }
                    tbody {
                        @for row in rows {
                            tr {
                                td.fn title=(row.name) { (row.name) }
                                td.num { (row.self_value) }
                                td.num { (row.self_percent) }
                                td.num { (row.total_value) }
                                td.num { (row.total_percent) }
                                td.src title=(row.source) { bdi { (row.source) } }
                            }
                        }
                    }
                }
                p #more hidden { span {} button.button type="button" { "Show more" } }
            }
        }
    }
}
