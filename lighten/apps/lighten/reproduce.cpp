// lighten reproduce: the published claim beside its baselines, on real data.
#include <iostream>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/catalogue/systems.h"

namespace lighten {

Verb reproduce_verb(CLI::App& root) {
  Verb verb = make_verb(root, "reproduce",
                        "runs a system's recipe: method and baselines in one run, claims, result.json and report.html",
                        "  lighten reproduce awq\n"
                        "  lighten reproduce awq --full             resumes where it was stopped\n"
                        "  lighten reproduce awq --smoke --seed 3 -o /tmp/awq\n");
  struct Options {
    std::string id, output;
    bool smoke = false, full = false;
  };
  auto options = std::make_shared<Options>();
  verb.app->add_option("ID", options->id, "a system of `lighten systems`")->required();
  CLI::Option* smoke = verb.app->add_flag("--smoke", options->smoke, "seconds: shows that all works, not that claims hold");
  verb.app->add_flag("--full", options->full, "the run whose result is committed (minutes to an hour)")->excludes(smoke);
  verb.app->add_option("-o,--output", options->output, "folder for result.json and report.html (default reproduce/ID)")
      ->type_name("DIR");
  verb.run = [options, common = verb.common] {
    const RecipeSize size = options->smoke ? RecipeSize::smoke : options->full ? RecipeSize::full : RecipeSize::standard;
    const fs::path folder = options->output.empty() ? fs::path("reproduce") / options->id : fs::path(options->output);
    system_of(options->id);
    const std::string text = run_recipe(options->id, size, common->seed, folder, common->threads);
    if (common->for_people())
      fmt::print("{}\n{} and {}\n", text, (folder / "result.json").string(), (folder / "report.html").string());
    if (!common->json.empty()) write_json(*common, Json::parse(read_file(folder / "result.json")));
    return 0;
  };
  return verb;
}

}  // namespace lighten
