//! The first page: selectors, the graph, the table, the status line.

use maud::{DOCTYPE, Markup, html};

use super::{Choice, Link, Note, Page, graph, table};

/// The whole document.
pub(crate) fn overview(page: &Page) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { "Profiling · " (page.service) }
                link rel="icon" href=(ICON);
                link rel="stylesheet" href=(page.style_url);
                script type="module" src=(page.script_url) {}
            }
            body {
                (header(page))
                (selectors(page))
                div #progress {}
                main #app data-graph=(page.graph_url) {
                    (graph::section(page))
                    (table::section(&page.top))
                }
                (status(&page.notes))
            }
        }
    }
}

fn header(page: &Page) -> Markup {
    html! {
        header.top {
            (flame())
            h1 { "Profiling" }
            nav aria-label="Other views" {
                @for link in &page.links { (anchor(link, "button")) }
                @if !page.downloads.is_empty() {
                    details.menu {
                        summary.button { "Download" }
                        div { @for link in &page.downloads { (anchor(link, "item")) } }
                    }
                }
                // A plain link to this very address, so that it works without JavaScript too.
                a #refresh.button.primary href="" title="Fetch this view again, zoom and search stay (r)" { "Refresh" }
                button #live.button type="button" hidden aria-pressed="false" title="Refresh every 10 seconds while this tab is visible" {
                    span.dot {} "Live"
                }
            }
        }
    }
}

fn anchor(link: &Link, class: &str) -> Markup {
    html! {
        @match &link.url {
            Some(url) => a class=(class) href=(url) data-link=(link.id) title=(link.hint) rel="noopener" { (link.label) },
            None => a class=(class) data-link=(link.id) title=(link.hint) aria-disabled="true" { (link.label) },
        }
    }
}

/// A GET form: the view is in the address, with or without JavaScript.
fn selectors(page: &Page) -> Markup {
    html! {
        form #view method="get" aria-label="View" {
            (select("service", "Service", &page.services))
            (select("type", "Profile", &page.types))
            (select("range", "Range", &page.ranges))
            fieldset #custom {
                label { span { "From (UTC)" } input type="datetime-local" step="1" name="from" value=(page.from); }
                label { span { "To (UTC)" } input type="datetime-local" step="1" name="to" value=(page.to); }
            }
            (select("thread", "Thread", &page.threads))
            @for (name, value) in &page.hidden { input type="hidden" name=(name) value=(value); }
            // The script shows this for a custom range only; every other change applies at once.
            button #apply.button type="submit" { "Apply" }
        }
    }
}

fn select(name: &str, label: &str, choices: &[Choice]) -> Markup {
    html! {
        label {
            span.sr { (label) }
            select name=(name) title=(label) {
                @for choice in choices {
                    option value=(choice.value) selected[choice.selected] { (choice.label) }
                }
            }
        }
    }
}

fn status(notes: &[Note]) -> Markup {
    html! {
        footer {
            dl #notes aria-label="State of the profiler" {
                @for note in notes {
                    div class=(note.level.name()) { dt { (note.label) } dd { (note.value) } }
                }
            }
        }
    }
}

fn flame() -> Markup {
    html! {
        svg width="22" height="22" viewBox="0 0 24 24" aria-hidden="true" {
            path fill="#e8590c" d="M12 2c1 4 6 6.500 6 12.200A6 6 0 0 1 12 22a6 6 0 0 1-6-7.500C6 11 8.500 9.500 9 6c1.500 1 2.300 2.300 2.500 4C12.500 7.500 12.600 5 12 2z" {}
            path fill="#ffc078" d="M12.200 12c.6 2.200 2.800 3 2.800 5.800A3 3 0 0 1 12 21a3 3 0 0 1-3-3.200c0-1.800 1.300-2.500 1.700-4.300.6.4 1 .9 1.100 1.600.4-1 .5-2 .4-3.100z" {}
        }
    }
}

/// The same flame for the browser's tab.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E%3Cpath fill='%23e8590c' d='M12 2c1 4 6 6.500 6 12.200A6 6 0 0 1 12 22a6 6 0 0 1-6-7.500C6 11 8.500 9.500 9 6c1.500 1 2.300 2.300 2.500 4C12.500 7.500 12.600 5 12 2z'/%3E%3C/svg%3E";
