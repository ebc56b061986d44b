#include "launcher/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launcher/step_profile.h"
#include "launcher/svg.h"

namespace trireme {

namespace {

constexpr const char* kStyle = R"(
body { margin: 0 auto; max-width: 1200px; padding: 28px 20px 60px; background: #fff; color: #1d2733;
       font: 15px/1.5 system-ui, 'DejaVu Sans', sans-serif; }
h1 { margin: 0; font-size: 26px; } h2 { margin: 36px 0 2px; font-size: 19px; }
p { margin: 2px 0 12px; color: #5a6672; } footer { margin-top: 40px; color: #8a939c; font-size: 13px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0 4px; }
section { margin-top: 14px; }
.cards div { flex: 1 1 130px; border: 1px solid #e2e6ea; border-radius: 8px; padding: 10px 14px; }
.cards b { display: block; font-size: 20px; font-weight: 600; } .cards span { color: #5a6672; font-size: 13px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 18px; }
.pictures svg, .wide svg { display: block; box-sizing: border-box; width: 100%; height: auto; border: 1px solid #e2e6ea; border-radius: 8px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; margin-top: 12px; }
th, td { padding: 4px 12px; text-align: right; border-bottom: 1px solid #e9ecef; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: #5a6672; font-weight: 600; }
)";

/// The color of a span in the timeline and the name of its kind in the legend.
struct Kind {
  const char *color, *name;
};

Kind kind_of(const TraceSpan& span) {
  if (span.name == "backward") return {svg::kBlue, "backward"};
  if (span.name.starts_with("forward")) return {svg::kTeal, "forward"};
  if (span.category == "data") return {svg::kPurple, "wait for data"};
  if (is_sum(span)) return {svg::kOrange, "sum over ranks"};
  if (span.category == "communication") return {"#edc9a8", "other work of the communication thread"};
  return {nullptr, nullptr};
}

/// Returns the index of the step whose duration is the median. Skips the first two steps if there are more
/// than four.
std::size_t usual_step(const TracedRank& steps) {
  std::vector<std::size_t> order;
  for (std::size_t i = steps.size() > 4 ? 2 : 0; i < steps.size(); ++i) order.push_back(i);
  const auto length = [&](std::size_t i) { return steps[i].end_us - steps[i].begin_us; };
  std::ranges::sort(order, [&](auto a, auto b) { return length(a) < length(b); });
  return order[order.size() / 2];
}

std::string short_name(const TraceSpan& span) {
  const std::size_t at = span.name.find("bucket ");
  return at == std::string::npos ? "" : span.name.substr(at + 7, span.name.find(' ', at + 7) - at - 7);
}

/// Appends the two rows of a rank, with times in milliseconds since `begin_us`.
void add_rows(std::vector<svg::Row>& rows, std::size_t rank, const TracedStep& step, double begin_us) {
  svg::Row compute{fmt::format("rank {} compute", rank), {}}, communication{"communication", {}};
  for (const TraceSpan& span : step.spans) {
    const Kind kind = kind_of(span);
    if (kind.color == nullptr) continue;
    const double begin = (span.begin_us - begin_us) / 1e3, end = (span.end_us - begin_us) / 1e3;
    std::string text = fmt::format("{}: {} ms, from {} to {} ms", span.name, svg::figure(end - begin),
                                   svg::figure(begin), svg::figure(end));
    if (span.category != "communication") {
      compute.boxes.push_back({begin, end, kind.color, text, kind.name, false});
      continue;
    }
    const double enqueued = (enqueued_us(span) - begin_us) / 1e3;
    if (is_sum(span)) {
      text += fmt::format(", enqueued at {} ms", svg::figure(enqueued));
      communication.boxes.push_back({enqueued, begin, "#d5d9de", "waits: " + text, "", true});
    }
    communication.boxes.push_back(
        {begin, end, kind.color, text, is_sum(span) ? short_name(span) : "", false});
  }
  // Draw the thin lines of waiting calls first, so that boxes cover them.
  std::ranges::stable_sort(communication.boxes, [](const auto& a, const auto& b) { return a.thin > b.thin; });
  const double after = std::ranges::max(step.spans, {}, &TraceSpan::end_us).end_us;
  if (after < step.end_us)
    compute.boxes.push_back({(after - begin_us) / 1e3, (step.end_us - begin_us) / 1e3, svg::kGreen,
                             fmt::format("optimizer: {} ms", svg::figure((step.end_us - after) / 1e3)),
                             "optimizer", false});
  rows.push_back(std::move(compute));
  rows.push_back(std::move(communication));
}

std::string sums_table(const TracedStep& step) {
  std::vector<std::vector<std::string>> rows;
  double backward_end = step.begin_us;
  for (const TraceSpan& span : step.spans)
    if (span.name == "backward") backward_end = span.end_us;
  for (const TraceSpan& span : step.spans) {
    if (!is_sum(span)) continue;
    const double length = span.end_us - span.begin_us;
    const double exposed = std::clamp(span.end_us - backward_end, 0.0, length);
    const auto bytes = span.args.find("bytes");
    const double mega = bytes == span.args.end() ? 0 : bytes->second / 1e6;
    rows.push_back({span.name, svg::figure(mega), svg::figure((enqueued_us(span) - step.begin_us) / 1e3),
                    svg::figure((span.begin_us - enqueued_us(span)) / 1e3), svg::figure(length / 1e3),
                    svg::figure((length - exposed) / 1e3), svg::figure(exposed / 1e3)});
  }
  return html_table({"sum", "MB", "ready at (ms)", "waited (ms)", "took (ms)", "hidden (ms)", "exposed (ms)"},
                    rows);
}

}  // namespace

std::string html_page(std::string_view title, std::string_view subtitle, std::string_view body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"/>\n<title>{0}</title>\n<style>{1}</style>\n"
      "</head>\n<body>\n<h1>{0}</h1>\n<p>{2}</p>\n{3}<footer>Written by trireme "
      "report.</footer>\n</body>\n</html>\n",
      svg::escaped(title), kStyle, svg::escaped(subtitle), body);
}

std::string html_section(std::string_view heading, std::string_view note, std::string_view content) {
  const std::string head = heading.empty() ? "" : fmt::format("<h2>{}</h2>\n", svg::escaped(heading));
  return fmt::format("<section>\n{}<p>{}</p>\n{}</section>\n", head, svg::escaped(note), content);
}

std::string html_cards(const std::vector<std::pair<std::string, std::string>>& cards) {
  std::string text = "<div class=\"cards\">\n";
  for (const auto& [what, value] : cards)
    text += fmt::format("<div><b>{}</b><span>{}</span></div>\n", svg::escaped(value), svg::escaped(what));
  return text + "</div>\n";
}

std::string html_pictures(const std::vector<std::string>& pictures) {
  std::string text = "<div class=\"pictures\">\n";
  for (const std::string& picture : pictures) text += picture;
  return text + "</div>\n";
}

std::string html_table(const std::vector<std::string>& head,
                       const std::vector<std::vector<std::string>>& rows) {
  const auto row = [](const std::vector<std::string>& cells, const char* tag) {
    std::string text = "<tr>";
    for (const std::string& cell : cells) text += fmt::format("<{0}>{1}</{0}>", tag, svg::escaped(cell));
    return text + "</tr>\n";
  };
  std::string text = "<div class=\"wide\"><table>\n" + row(head, "th");
  for (const auto& cells : rows) text += row(cells, "td");
  return text + "</table></div>\n";
}

std::string html_step(const std::vector<TracedRank>& ranks, std::size_t most_ranks) {
  const std::size_t at = usual_step(ranks[0]);
  const TracedStep& first = ranks[0][at];
  std::vector<svg::Row> rows;
  std::vector<std::pair<std::string, std::string>> legend;
  double begin_us = first.begin_us;
  for (const TracedRank& rank : ranks)
    if (at < rank.size()) begin_us = std::min(begin_us, rank[at].begin_us);
  for (std::size_t rank = 0; rank < std::min(ranks.size(), most_ranks); ++rank) {
    if (at >= ranks[rank].size() || ranks[rank][at].spans.empty()) continue;
    add_rows(rows, rank, ranks[rank][at], begin_us);
    for (const TraceSpan& span : ranks[rank][at].spans)
      if (const Kind kind = kind_of(span); kind.color != nullptr)
        if (const std::pair<std::string, std::string> entry{kind.name, kind.color};
            std::ranges::find(legend, entry) == legend.end())
          legend.push_back(entry);
  }
  legend.emplace_back("optimizer and the rest", svg::kGreen);
  legend.emplace_back("enqueued, waits for its turn", "#d5d9de");
  const std::string shown = rows.size() / 2 < ranks.size()
                                ? fmt::format(", the first {} of {} ranks", rows.size() / 2, ranks.size())
                                : "";
  return "<div class=\"wide\">" +
         svg::timeline({fmt::format("Step {}{}", first.step, shown), "time in the step (ms)", ""}, rows,
                       legend) +
         "</div>\n" + sums_table(first);
}

}  // namespace trireme
