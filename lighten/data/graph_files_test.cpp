#include "lighten/data/graph_files.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"

namespace lighten {
namespace {

struct TemporaryFile {
  TemporaryFile(const std::string& name, const std::string& text) : path(fs::temp_directory_path() / name) {
    write_file(path, text);
  }
  ~TemporaryFile() { fs::remove(path); }
  fs::path path;
};

template <typename Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const FormatError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(GraphFiles, EdgesBecomeSymmetricRows) {
  const TemporaryFile file("lighten-edges.tsv", "0\t2\n2\t0\n1\t1\n3\t2\n");
  const EdgeList edges = read_edges(file.path, 5);
  EXPECT_EQ(edges.row_begin, (std::vector<int64_t>{0, 1, 1, 3, 4, 4}));
  EXPECT_EQ(edges.neighbours, (std::vector<int32_t>{2, 0, 3, 2}));
  EXPECT_EQ(edges.self_loops, 1);
  EXPECT_EQ(edges.repeats, 1);
  EXPECT_EQ(edges.isolated, 2);
  EXPECT_NE(message_of([&] { read_edges(file.path, 3); }).find("line 4: node 3 does not exist"), std::string::npos);
  const TemporaryFile words("lighten-words.tsv", "0\t1\na\tb\n");
  EXPECT_NE(message_of([&] { read_edges(words.path, 3); }).find("line 2"), std::string::npos);
}

TEST(GraphFiles, LabelsAndTheirErrors) {
  const TemporaryFile file("lighten-labels.csv", "id,label,split\n0,b,train\n3,a,test\n1,a,validation\n");
  const NodeLabels labels = read_node_labels(file.path, 4);
  EXPECT_EQ(labels.labels, (std::vector<int32_t>{1, 0, -1, 0}));
  EXPECT_EQ(labels.class_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(labels.splits[1], Split::validation);
  const auto error = [](const std::string& text) {
    const TemporaryFile bad("lighten-bad.csv", text);
    return message_of([&] { read_node_labels(bad.path, 4); });
  };
  EXPECT_NE(error("id,label\n0,a\n1,a\n").find("at least two classes"), std::string::npos);
  EXPECT_NE(error("id,label\n0,a\n0,b\n").find("line 3: node 0 has a label already"), std::string::npos);
  EXPECT_NE(error("id,label\n0,a\n9,b\n").find("line 3: node 9"), std::string::npos);
  EXPECT_NE(error("id,label,split\n0,a,train\n1,b,trian\n").find("did you mean 'train'"), std::string::npos);
  EXPECT_NE(error("id,label,split\n0,a,test\n1,b,test\n").find("no label is for training"), std::string::npos);
  EXPECT_NE(error("id,class\n0,a\n").find("no column 'label'"), std::string::npos);
}

}  // namespace
}  // namespace lighten
