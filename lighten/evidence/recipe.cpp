#include "lighten/evidence/recipe.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/base/threads.h"

namespace lighten {
namespace {

using Clock = std::chrono::steady_clock;

/// JSON has no infinities: such values are written as null and read back as not-a-number.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
double number(const Json& json) { return json.is_number() ? json.get<double>() : std::numeric_limits<double>::quiet_NaN(); }

/// Differences from the first value are averaged, so that equal values have exactly that mean and no spread.
double mean_of(const std::vector<double>& values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  for (const double v : values) sum += v - values[0];
  return std::isfinite(sum) ? values[0] + sum / static_cast<double>(values.size()) : values[0] + sum;
}

double sd_of(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double mean = mean_of(values);
  double sum = 0;
  for (const double v : values) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

/// Four significant digits: enough to compare, few enough to read.
int decimals_of(double value) {
  return std::clamp(3 - static_cast<int>(std::floor(std::log10(std::max(std::abs(value), 1e-9)))), 0, 6);
}

std::string figure(double value) {
  if (!std::isfinite(value)) return "not finite";
  const double size = std::abs(value);
  if (size == 0) return "0";
  return size >= 1e6 || size < 1e-4 ? fmt::format("{:.3e}", value) : fmt::format("{:.{}f}", value, decimals_of(value));
}

/// "33.18 ± 0.66"; the spread is left out when there is none.
std::string figure(double mean, double sd) {
  if (!std::isfinite(sd) || sd == 0 || std::abs(mean) >= 1e6 || std::abs(mean) < 1e-4) return figure(mean);
  return fmt::format("{} ± {:.{}f}", figure(mean), sd, decimals_of(mean));
}

std::string processor_name() {
  std::string text;
  try {
    text = read_file("/proc/cpuinfo");
  } catch (const FileError&) {
    return "unknown";
  }
  const size_t at = text.find("model name");
  if (at == std::string::npos) return "unknown";
  const size_t from = text.find(": ", at);
  return from == std::string::npos ? "unknown" : text.substr(from + 2, text.find('\n', from) - from - 2);
}

/// Size and time of the running program: tells measurements of two builds apart.
std::string build_stamp() {
  struct stat status {};
  return ::stat("/proc/self/exe", &status) == 0 ? fmt::format("{}-{}", status.st_size, status.st_mtime) : "unknown";
}

}  // namespace

std::string to_string(RecipeSize size) {
  return size == RecipeSize::smoke ? "smoke" : size == RecipeSize::standard ? "default" : "full";
}

struct Bench::State {
  std::string id, claim;
  RecipeSize size;
  uint64_t first_seed;
  fs::path folder;
  int threads;
  std::vector<std::string> order;                                                 ///< arms as they first ran
  std::map<std::string, std::map<uint64_t, std::map<std::string, double>>> arms;  ///< arm, seed, metric
  std::set<uint64_t> used;                                                        ///< seeds that this run asked for
  std::vector<Claim> claims;
  std::vector<std::string> notes;
  std::vector<Plot> plots;
  Json settings = Json::object(), versions = Json::object();
  std::vector<std::string> metric_order;
  std::map<std::string, std::string> labels, units;
  std::string baseline, stamp = build_stamp();
  double seconds_before = 0;
  uint64_t peak_before = 0;
  bool mixed_builds = false;
  Clock::time_point start = Clock::now();

  /// What a reader must know before the claims; "" for the full size.
  std::string size_remark() const {
    if (size == RecipeSize::full) return "";
    return fmt::format("This is the {} size: it shows that the recipe runs. Only --full judges the claims.", to_string(size));
  }
  fs::path file() const { return folder / fmt::format("state-{}.json", to_string(size)); }
  double seconds() const { return seconds_before + std::chrono::duration<double>(Clock::now() - start).count(); }
  uint64_t peak() const { return std::max(peak_before, peak_resident_bytes()); }
  void load();
  void save() const;
  std::vector<std::string> metrics() const;
  std::string label(const std::string& metric, bool with_unit = true) const;
  Json result() const;
  std::string text() const;
  Report report() const;
  std::string command() const;
};

void Bench::State::load() {
  if (!fs::exists(file())) return;
  try {
    const Json json = Json::parse(read_file(file()));
    if (json.at("id") != id || json.at("lighten") != LIGHTEN_VERSION) return;
    for (const Json& entry : json.at("done")) {
      const std::string arm = entry.at("arm");
      if (std::find(order.begin(), order.end(), arm) == order.end()) order.push_back(arm);
      auto& metrics = arms[arm][entry.at("seed").get<uint64_t>()];
      for (const auto& [metric, value] : entry.at("metrics").items()) metrics[metric] = number(value);
    }
    seconds_before = json.at("seconds");
    peak_before = json.at("peak_bytes");
    mixed_builds = json.at("build") != stamp || json.value("mixed_builds", false);
  } catch (const Json::exception& error) {
    throw_error<FormatError>("{}: not a state file of lighten ({}); remove it to start anew", file().string(), error.what());
  }
  size_t done = 0;
  for (const auto& [arm, seeds] : arms) done += seeds.size();
  info(fmt::format("going on in {}: {} measurement(s) are done", folder.string(), done));
  if (mixed_builds)
    warn("some of these measurements come from another build of lighten; remove " + file().string() + " to start anew");
}

void Bench::State::save() const {
  Json json = {{"id", id},
               {"lighten", LIGHTEN_VERSION},
               {"build", stamp},
               {"mixed_builds", mixed_builds},
               {"seconds", seconds()},
               {"peak_bytes", peak()}};
  json["done"] = Json::array();
  for (const std::string& arm : order)
    for (const auto& [seed, metrics] : arms.at(arm)) {
      Json values = Json::object();
      for (const auto& [metric, value] : metrics) values[metric] = number(value);
      json["done"].push_back({{"arm", arm}, {"seed", seed}, {"metrics", values}});
    }
  write_file(file(), json_text(json, 1) + "\n");
}

std::vector<std::string> Bench::State::metrics() const {
  std::vector<std::string> names = metric_order;
  for (const auto& [arm, seeds] : arms)
    for (const auto& [seed, metrics] : seeds)
      for (const auto& [metric, value] : metrics)
        if (std::find(names.begin(), names.end(), metric) == names.end()) names.push_back(metric);
  std::erase_if(names, [&](const std::string& name) {
    return std::none_of(arms.begin(), arms.end(), [&](const auto& arm) {
      return std::any_of(arm.second.begin(), arm.second.end(), [&](const auto& seed) { return seed.second.contains(name); });
    });
  });
  return names;
}

std::string Bench::State::label(const std::string& metric, bool with_unit) const {
  const auto found = labels.find(metric);
  std::string text = found == labels.end() ? metric : found->second;
  if (found == labels.end()) std::replace(text.begin(), text.end(), '_', ' ');
  if (const auto unit = units.find(metric); with_unit && unit != units.end() && !unit->second.empty())
    text += ", " + unit->second;
  return text;
}

std::string Bench::State::command() const {
  return fmt::format("lighten reproduce {}{} --seed {}", id, size == RecipeSize::standard ? "" : " --" + to_string(size),
                     first_seed);
}

Json Bench::State::result() const {
  Json json = {{"id", id}, {"claim", claim}, {"size", to_string(size)}, {"seeds", Json::array()}};
  for (const uint64_t seed : used) json["seeds"].push_back(seed);
  json["arms"] = Json::object();
  for (const std::string& arm : order) {
    Json& row = json["arms"][arm] = Json::object();
    for (const std::string& metric : metrics()) {
      std::vector<double> values;
      for (const auto& [seed, found] : arms.at(arm))
        if (used.contains(seed) && found.contains(metric)) values.push_back(found.at(metric));
      if (values.empty()) continue;
      Json list = Json::array();
      for (const double v : values) list.push_back(number(v));
      row[metric] = {{"values", list}, {"mean", number(mean_of(values))}, {"sd", number(sd_of(values))}};
    }
  }
  json["claims"] = Json::array();
  for (const Claim& claim : claims) {
    Json entry = {{"text", claim.text}, {"holds", claim.holds}, {"margin", number(claim.margin)}};
    if (!claim.paired.empty()) {
      entry["paired"] = Json::array();
      for (const double m : claim.paired) entry["paired"].push_back(number(m));
    }
    json["claims"].push_back(entry);
  }
  json["notes"] = notes;
  json["settings"] = settings;
  json["versions"] = versions;
  if (mixed_builds) json["mixed_builds"] = true;
  json["seconds"] = seconds();
  json["peak_bytes"] = peak();
  json["command"] = command();
  return json;
}

std::string Bench::State::text() const {
  const std::vector<std::string> names = metrics();
  std::vector<std::string> header = {"arm"};
  for (const std::string& metric : names) header.push_back(label(metric));
  Table table(header);
  const Json json = result();
  for (const std::string& arm : order) {
    std::vector<std::string> row = {arm};
    for (const std::string& metric : names) {
      const auto& values = json.at("arms").at(arm);
      if (!values.contains(metric))
        row.push_back("-");
      else
        row.push_back(figure(number(values.at(metric).at("mean")), number(values.at(metric).at("sd"))));
    }
    table.row(row);
  }
  std::string out = table.text() + "\n";
  if (const std::string remark = size_remark(); !remark.empty()) out += remark + "\n";
  for (const Claim& claim : claims)
    out += fmt::format("{}  {} (margin {:+.1f} %)\n", claim.holds ? "holds" : "FAILS", claim.text, 100 * claim.margin);
  return out;
}

Report Bench::State::report() const {
  Report report(fmt::format("Reproducing {}", id), claim);
  if (const std::string remark = size_remark(); !remark.empty()) report.paragraph(remark);
  if (!claims.empty()) report.heading("Claims").claims(claims);
  const std::vector<std::string> names = metrics();
  const Json json = result();
  const auto mean = [&](const std::string& arm, const std::string& metric) {
    const Json& values = json.at("arms").at(arm);
    return values.contains(metric) ? number(values.at(metric).at("mean")) : std::numeric_limits<double>::quiet_NaN();
  };
  std::vector<std::string> header = {"arm"};
  std::vector<std::vector<std::string>> rows;
  const bool compare = arms.contains(baseline);
  for (const std::string& metric : names) {
    header.push_back(label(metric));
    if (compare) header.push_back("against " + baseline);
  }
  for (const std::string& arm : order) {
    std::vector<std::string> row = {arm};
    for (const std::string& metric : names) {
      const Json& values = json.at("arms").at(arm);
      if (!values.contains(metric)) {
        row.push_back("–");
        if (compare) row.push_back("");
        continue;
      }
      row.push_back(figure(mean(arm, metric), number(values.at(metric).at("sd"))));
      const double base = compare ? mean(baseline, metric) : 0;
      if (compare)
        row.push_back(
            arm == baseline || !(std::abs(base) > 0) ? "" : fmt::format("{:+.1f} %", 100 * (mean(arm, metric) / base - 1)));
    }
    rows.push_back(row);
  }
  report.heading("Measurements").table(fmt::format("Mean ± standard deviation over {} seed(s)", used.size()), header, rows);
  std::vector<Plot> shown = plots;
  if (shown.empty())
    for (const std::string& metric : names) {
      Plot plot{Plot::Kind::bars,
                label(metric, false),
                "Bars: mean; lines: one standard deviation over seeds.",
                "",
                label(metric),
                {}};
      Series series;
      for (const std::string& arm : order)
        if (const Json& values = json.at("arms").at(arm); values.contains(metric)) {
          series.labels.push_back(arm);
          series.y.push_back(mean(arm, metric));
          series.error.push_back(number(values.at(metric).at("sd")));
        }
      plot.series = {series};
      shown.push_back(plot);
    }
  for (const Plot& plot : shown) report.plot(plot);
  if (!notes.empty()) report.heading("Notes");
  for (const std::string& note : notes) report.paragraph(note);
  report.heading("How it was made").code(command());
  std::vector<std::vector<std::string>> facts = {
      {"size", to_string(size)}, {"time", human_seconds(seconds())}, {"peak memory", human_bytes(static_cast<double>(peak()))}};
  const auto add = [&](const std::string& name, const Json& value) {
    facts.push_back({name, value.is_string() ? value.get<std::string>() : json_text(value)});
  };
  for (const Json* group : {&settings, &versions})
    for (const auto& [name, value] : group->items()) {
      if (!value.is_object())
        add(name, value);
      else
        for (const auto& [option, set] : value.items()) add(fmt::format("{}: {}", name, option), set);
    }
  report.table("", {"what", "value"}, facts);
  return report;
}

Bench::Bench(std::string id, std::string claim, RecipeSize size, uint64_t first_seed, fs::path folder, int threads)
    : state_(std::make_unique<State>()) {
  state_->id = std::move(id);
  state_->claim = std::move(claim);
  state_->size = size;
  state_->first_seed = first_seed;
  state_->folder = std::move(folder);
  state_->threads = threads > 0 ? threads : available_processors();
  std::error_code error;
  fs::create_directories(state_->folder, error);
  if (error) throw_error<FileError>("{}: cannot be created: {}", state_->folder.string(), error.message());
  state_->settings["threads"] = state_->threads;
  state_->settings["processor"] = processor_name();
  state_->versions["lighten"] = LIGHTEN_VERSION;
  state_->versions["compiler"] = __VERSION__;
  state_->load();
}

Bench::~Bench() = default;

RecipeSize Bench::size() const { return state_->size; }
int Bench::threads() const { return state_->threads; }
const fs::path& Bench::folder() const { return state_->folder; }

std::vector<uint64_t> Bench::seeds(int n) const {
  std::vector<uint64_t> seeds(static_cast<size_t>(std::max(n, 0)));
  std::iota(seeds.begin(), seeds.end(), state_->first_seed);
  return seeds;
}

std::map<std::string, double> Bench::arm(const std::string& name, uint64_t seed,
                                         const std::function<std::map<std::string, double>()>& measure) {
  check_interrupt();
  state_->used.insert(seed);
  auto& seeds = state_->arms[name];
  if (std::find(state_->order.begin(), state_->order.end(), name) == state_->order.end()) state_->order.push_back(name);
  if (const auto found = seeds.find(seed); found != seeds.end()) return found->second;
  info(fmt::format("{}: arm {}, seed {}", state_->id, name, seed));
  auto metrics = measure();
  seeds[seed] = metrics;
  state_->save();
  return metrics;
}

std::vector<double> Bench::values(const std::string& arm, const std::string& metric) const {
  std::vector<double> values;
  if (const auto found = state_->arms.find(arm); found != state_->arms.end())
    for (const auto& [seed, metrics] : found->second)
      if (state_->used.contains(seed))
        if (const auto value = metrics.find(metric); value != metrics.end()) values.push_back(value->second);
  return values;
}

double Bench::mean(const std::string& arm, const std::string& metric) const { return mean_of(values(arm, metric)); }
double Bench::sd(const std::string& arm, const std::string& metric) const { return sd_of(values(arm, metric)); }

void Bench::claim_below(const std::string& text, const std::string& better, const std::string& worse,
                        const std::string& metric) {
  std::vector<double> paired;
  const auto& arms = state_->arms;
  if (arms.contains(better) && arms.contains(worse))
    for (const auto& [seed, metrics] : arms.at(better)) {
      const auto other = arms.at(worse).find(seed);
      if (!state_->used.contains(seed) || other == arms.at(worse).end() || !metrics.contains(metric) ||
          !other->second.contains(metric))
        continue;
      paired.push_back((other->second.at(metric) - metrics.at(metric)) / std::abs(other->second.at(metric)));
    }
  if (paired.empty())
    throw_error<Error>("claim '{}': the arms {} and {} share no seed with the metric {}", text, better, worse, metric);
  claim_paired(text, paired);
}

void Bench::claim_paired(const std::string& text, const std::vector<double>& paired) {
  const double margin = mean_of(paired);
  state_->claims.push_back({text, margin > 0, margin, paired});
}

void Bench::claim(const std::string& text, double margin) { state_->claims.push_back({text, margin > 0, margin, {}}); }
void Bench::note(const std::string& text) { state_->notes.push_back(text); }
void Bench::plot(Plot plot) { state_->plots.push_back(std::move(plot)); }
void Bench::setting(const std::string& name, Json value) { state_->settings[name] = std::move(value); }
void Bench::version(const std::string& name, const std::string& value) { state_->versions[name] = value; }
void Bench::baseline(const std::string& arm) { state_->baseline = arm; }

void Bench::plot_lines(const std::string& title, const std::string& x_label, const std::string& y_label,
                       std::vector<Series> series, bool log_y) {
  plot({Plot::Kind::lines, title, "", x_label, y_label, std::move(series), false, log_y});
}

void Bench::plot_bars(const std::string& title, const std::string& y_label, std::vector<Series> series) {
  plot({Plot::Kind::bars, title, "", "", y_label, std::move(series)});
}

void Bench::describe_metric(const std::string& metric, const std::string& label, const std::string& unit) {
  if (!state_->labels.contains(metric)) state_->metric_order.push_back(metric);
  state_->labels[metric] = label;
  state_->units[metric] = unit;
}

std::string Bench::finish() {
  write_file(state_->folder / "report.html", state_->report().html());
  write_file(state_->folder / "result.json", json_text(state_->result(), 1) + "\n");
  std::error_code error;
  fs::remove(state_->file(), error);  // a finished run is not resumed: the next one measures again
  return state_->text();
}

}  // namespace lighten
