//! The frame around the canvas. What is only of use with the script is `hidden` until it runs.

use maud::{Markup, html};

use super::Page;

/// The graph, its tools, and the picture that stands in for it without JavaScript.
pub(super) fn section(page: &Page) -> Markup {
    html! {
        section #graph aria-labelledby="summary" {
            div.head {
                h2 #summary { (page.title) }
                div #tools hidden role="search" {
                    input #q type="search" placeholder="Search: regex or \"exact name\"  ( / )" aria-label="Search functions, a regular expression or an exact name in quotes"
                        autocomplete="off" autocapitalize="off" spellcheck="false";
                    button #prev.button type="button" disabled title="Previous match (N)" aria-label="Previous match" { "↑" }
                    button #next.button type="button" disabled title="Next match (n)" aria-label="Next match" { "↓" }
                    button #fold.button type="button" aria-pressed="false" title="Leave out the frames of std, tokio, hyper, … that lead to other code (h)" { "Fold runtime" }
                    button #reset.button type="button" disabled title="Show the whole graph (Esc)" { "Reset zoom" }
                }
            }
            p #error role="alert" hidden {}
            div.line {
                nav #crumbs aria-label="Zoomed frame and its callers" hidden {}
                output #found for="q" {}
            }
            div #scroll hidden tabindex="0" role="application" aria-roledescription="flame graph"
                aria-label="Flame graph. Arrow keys move, Enter zooms in, Backspace goes back, Escape resets. The table below has the same data." {
                canvas #canvas {}
                div #spacer {}
                div #hover hidden {}
            }
            p #empty hidden {}
            div #tip role="tooltip" hidden {}
            p #say.sr role="status" {}
            noscript {
                img.picture src=(page.svg_url) alt="Flame graph of the same view, as a picture. The table below has its heaviest functions.";
            }
        }
    }
}
