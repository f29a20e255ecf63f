#include "lighten/nn/graph.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/nn/product.h"

namespace lighten {
namespace {

constexpr int64_t kRowsAtOnce = 256;

torch::Tensor longs(const std::vector<int64_t>& values) { return torch::tensor(values, torch::kInt64); }

/// y[row] = sum over entries of value * x[column]; with `source`, entry k takes value[source[k]].
template <typename T>
void multiply(const int64_t* row_begin, const int64_t* column, const int64_t* source, const T* value, const T* x, T* y,
              int64_t rows, int64_t width) {
  at::parallel_for(0, rows, kRowsAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      T* out = y + row * width;
      std::fill(out, out + width, T{0});
      for (int64_t k = row_begin[row]; k < row_begin[row + 1]; ++k) {
        const T weight = value[source ? source[k] : k];
        const T* from = x + column[k] * width;
        for (int64_t c = 0; c < width; ++c) out[c] += weight * from[c];
      }
    }
  });
}

torch::Tensor multiply(const SparseMatrix& a, const torch::Tensor& value, const torch::Tensor& x_any, bool transposed) {
  const torch::Tensor x = x_any.contiguous(), v = value.to(x.scalar_type()).contiguous();
  const int64_t rows = transposed ? a.columns : a.rows;
  torch::Tensor y = torch::empty({rows, x.size(1)}, x.options());
  const auto* begin = (transposed ? a.t_row_begin : a.row_begin).data_ptr<int64_t>();
  const auto* column = (transposed ? a.t_column : a.column).data_ptr<int64_t>();
  const int64_t* source = transposed ? a.t_source.data_ptr<int64_t>() : nullptr;
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "spmm", [&] {
    multiply<scalar_t>(begin, column, source, v.data_ptr<scalar_t>(), x.data_ptr<scalar_t>(), y.data_ptr<scalar_t>(), rows,
                       x.size(1));
  });
  return y;
}

/// d value_k = dy[row_k] . x[column_k]
torch::Tensor value_gradient(const SparseMatrix& a, const torch::Tensor& dy_any, const torch::Tensor& x_any) {
  const torch::Tensor dy = dy_any.contiguous(), x = x_any.contiguous();
  torch::Tensor dv = torch::empty({a.entries()}, x.options());
  const auto* begin = a.row_begin.data_ptr<int64_t>();
  const auto* column = a.column.data_ptr<int64_t>();
  const int64_t width = x.size(1);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "spmm_value_gradient", [&] {
    const auto *g = dy.data_ptr<scalar_t>(), *from = x.data_ptr<scalar_t>();
    auto* out = dv.data_ptr<scalar_t>();
    at::parallel_for(0, a.rows, kRowsAtOnce, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row)
        for (int64_t k = begin[row]; k < begin[row + 1]; ++k) {
          scalar_t sum = 0;
          for (int64_t c = 0; c < width; ++c) sum += g[row * width + c] * from[column[k] * width + c];
          out[k] = sum;
        }
    });
  });
  return dv;
}

/// Keeps the matrix alive inside the autograd graph.
struct SparseHolder : torch::CustomClassHolder {
  explicit SparseHolder(Sparse matrix) : matrix(std::move(matrix)) {}
  Sparse matrix;
};

struct SpmmFunction : torch::autograd::Function<SpmmFunction> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const Sparse& a, const torch::Tensor& value,
                               const torch::Tensor& x) {
    context->save_for_backward({value, x});
    matrix_of(context) = a;
    return multiply(*a, value, x, false);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Sparse a = matrix_of(context);
    torch::Tensor dv, dx;
    // Only tensors count as inputs here: value is the first, x the second.
    if (context->needs_input_grad(0)) dv = value_gradient(*a, gradients[0], saved[1]);
    if (context->needs_input_grad(1)) dx = multiply(*a, saved[0], gradients[0], true);
    return {torch::Tensor(), dv, dx};
  }

 private:
  static Sparse& matrix_of(torch::autograd::AutogradContext* context) {
    auto& slot = context->saved_data["matrix"];
    if (slot.isNone()) slot = torch::IValue::make_capsule(c10::make_intrusive<SparseHolder>(nullptr));
    return static_cast<SparseHolder*>(slot.toCapsule().get())->matrix;
  }
};

}  // namespace

Sparse make_sparse(int64_t columns, const std::vector<int64_t>& row_begin, const std::vector<int32_t>& column,
                   const std::vector<float>& value) {
  if (row_begin.empty() || row_begin.front() != 0 || row_begin.back() != std::ssize(column) ||
      (!value.empty() && value.size() != column.size()))
    throw_error<ModelError>("a sparse matrix of {} entries whose rows end at {}", column.size(),
                            row_begin.empty() ? 0 : row_begin.back());
  auto a = std::make_shared<SparseMatrix>();
  a->rows = std::ssize(row_begin) - 1;
  a->columns = columns;
  std::vector<int64_t> wide(column.begin(), column.end()), count(static_cast<size_t>(columns) + 1, 0);
  for (int64_t row = 0; row < a->rows; ++row) {
    const int64_t begin = row_begin[static_cast<size_t>(row)], end = row_begin[static_cast<size_t>(row) + 1];
    if (end < begin) throw_error<ModelError>("a sparse matrix whose row {} ends before it begins", row);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t c = wide[static_cast<size_t>(k)];
      if (c < 0 || c >= columns || (k > begin && c <= wide[static_cast<size_t>(k) - 1]))
        throw_error<ModelError>("a sparse matrix whose row {} is not in ascending order of columns below {}", row, columns);
      ++count[static_cast<size_t>(c) + 1];
    }
  }
  for (size_t c = 1; c < count.size(); ++c) count[c] += count[c - 1];
  std::vector<int64_t> t_column(column.size()), t_source(column.size()), place = count;
  for (int64_t row = 0; row < a->rows; ++row)
    for (int64_t k = row_begin[static_cast<size_t>(row)]; k < row_begin[static_cast<size_t>(row) + 1]; ++k) {
      const auto at = static_cast<size_t>(place[static_cast<size_t>(wide[static_cast<size_t>(k)])]++);
      t_column[at] = row;
      t_source[at] = k;
    }
  a->row_begin = longs(row_begin);
  a->column = longs(wide);
  a->value = value.empty() ? torch::ones({std::ssize(column)}) : torch::tensor(value);
  a->t_row_begin = longs(count);
  a->t_column = longs(t_column);
  a->t_source = longs(t_source);
  return a;
}

torch::Tensor spmm(const Sparse& a, const torch::Tensor& value, const torch::Tensor& x) {
  if (x.dim() != 2 || x.size(0) != a->columns || value.size(0) != a->entries())
    throw_error<ModelError>("a sparse matrix of {} x {} ({} entries) times {} rows with {} values", a->rows, a->columns,
                            a->entries(), x.size(0), value.size(0));
  return SpmmFunction::apply(a, value, x);
}

torch::Tensor spmm(const Sparse& a, const torch::Tensor& x) { return spmm(a, a->value, x); }

Sparse normalised(const Sparse& a, Normalisation how, bool self_loops) {
  const auto* begin = a->row_begin.data_ptr<int64_t>();
  const auto* column = a->column.data_ptr<int64_t>();
  const auto* value = a->value.data_ptr<float>();
  std::vector<int64_t> row_begin = {0};
  std::vector<int32_t> columns;
  std::vector<float> values;
  std::vector<double> row_sum(static_cast<size_t>(a->rows)), column_sum(static_cast<size_t>(a->columns));
  const auto add = [&](int64_t row, int64_t to, float v) {
    columns.push_back(static_cast<int32_t>(to));
    values.push_back(v);
    row_sum[static_cast<size_t>(row)] += v;
    column_sum[static_cast<size_t>(to)] += v;
  };
  for (int64_t row = 0; row < a->rows; ++row) {
    bool own = !self_loops;
    for (int64_t k = begin[row]; k < begin[row + 1]; ++k) {
      if (!own && column[k] >= row) {
        if (column[k] > row) add(row, row, 1);
        own = true;
      }
      add(row, column[k], value[k]);
    }
    if (!own) add(row, row, 1);
    row_begin.push_back(std::ssize(columns));
  }
  for (int64_t row = 0; row < a->rows; ++row)
    for (int64_t k = row_begin[static_cast<size_t>(row)]; k < row_begin[static_cast<size_t>(row) + 1]; ++k) {
      const double out = row_sum[static_cast<size_t>(row)],
                   in = column_sum[static_cast<size_t>(columns[static_cast<size_t>(k)])];
      double scale = 1;
      if (how == Normalisation::row) scale = 1 / out;
      if (how == Normalisation::column) scale = 1 / in;
      if (how == Normalisation::symmetric) scale = 1 / std::sqrt(out * in);
      values[static_cast<size_t>(k)] = static_cast<float>(values[static_cast<size_t>(k)] * scale);
    }
  return make_sparse(a->columns, row_begin, columns, values);
}

Sparse restricted(const Sparse& a, const std::vector<bool>& kept) {
  const auto* begin = a->row_begin.data_ptr<int64_t>();
  const auto* column = a->column.data_ptr<int64_t>();
  const auto* value = a->value.data_ptr<float>();
  std::vector<int64_t> row_begin = {0};
  std::vector<int32_t> columns;
  std::vector<float> values;
  for (int64_t row = 0; row < a->rows; ++row) {
    for (int64_t k = begin[row]; k < begin[row + 1]; ++k)
      if (kept[static_cast<size_t>(row)] && kept[static_cast<size_t>(column[k])]) {
        columns.push_back(static_cast<int32_t>(column[k]));
        values.push_back(value[k]);
      }
    row_begin.push_back(std::ssize(columns));
  }
  return make_sparse(a->columns, row_begin, columns, values);
}

torch::Tensor propagate(const Sparse& a, torch::Tensor y, double alpha, int64_t times) {
  const torch::NoGradGuard no_grad;
  for (int64_t t = 0; t < times; ++t) y = (1 - alpha) * spmm(a, y) + alpha * y;
  return y;
}

torch::Tensor row_softmax(const Sparse& a, const torch::Tensor& value) {
  // Rows as an index per entry: sums over a row are index_add, and autograd knows the rest.
  const torch::Tensor counts = a->row_begin.slice(0, 1) - a->row_begin.slice(0, 0, -1);
  const torch::Tensor row = torch::repeat_interleave(counts);
  torch::Tensor highest;
  {
    const torch::NoGradGuard no_grad;  // shifting a row changes nothing
    highest = torch::full({a->rows, value.size(1)}, -INFINITY, value.options())
                  .scatter_reduce(0, row.unsqueeze(1).expand_as(value), value, "amax");
  }
  const torch::Tensor e = (value - highest.index_select(0, row)).exp();
  const torch::Tensor total = torch::zeros({a->rows, value.size(1)}, value.options()).index_add(0, row, e);
  return e / total.index_select(0, row);
}

GraphNetImpl::GraphNetImpl(GraphNetConfig net_config, uint64_t seed) : config(std::move(net_config)) {
  if (config.kind != "gcn" && config.kind != "gat")
    throw_error<OptionError>("a graph net of kind '{}': gcn or gat", config.kind);
  if (config.layers < 1 || config.inputs < 1 || config.outputs < 1 || config.hidden < 1)
    throw_error<OptionError>("a graph net of {} layers, {} inputs, width {} and {} outputs", config.layers, config.inputs,
                             config.hidden, config.outputs);
  if (config.kind == "gat" && (config.heads < 1 || config.hidden % config.heads != 0))
    throw_error<OptionError>("a GAT whose width {} is no multiple of its {} heads", config.hidden, config.heads);
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  const auto glorot = [&](std::vector<int64_t> shape, int64_t in, int64_t out) {
    const double limit = std::sqrt(6.0 / static_cast<double>(in + out));
    return torch::empty(shape).uniform_(-limit, limit, generator);
  };
  int64_t inputs = config.inputs;
  for (int64_t i = 0; i < config.layers; ++i) {
    const bool last = i + 1 == config.layers;
    const int64_t outputs = last ? config.outputs : config.hidden;
    weights.push_back(register_parameter(fmt::format("weight_{}", i), glorot({outputs, inputs}, inputs, outputs)));
    biases.push_back(register_parameter(fmt::format("bias_{}", i), torch::zeros({outputs})));
    if (config.kind == "gat") {
      const int64_t heads = last ? 1 : config.heads, width = outputs / heads;
      attend_from.push_back(register_parameter(fmt::format("from_{}", i), glorot({heads, width}, width, 1)));
      attend_to.push_back(register_parameter(fmt::format("to_{}", i), glorot({heads, width}, width, 1)));
    }
    inputs = outputs;
  }
}

Sparse GraphNetImpl::prepare(const Sparse& adjacency) const {
  return normalised(adjacency, config.kind == "gcn" ? Normalisation::symmetric : Normalisation::none, true);
}

torch::Tensor GraphNetImpl::layer(const Sparse& a, const torch::Tensor& h, int64_t i) {
  const auto at = static_cast<size_t>(i);
  const bool last = i + 1 == config.layers;
  const torch::Tensor x = config.dropout > 0 ? torch::dropout(h, config.dropout, is_training()) : h;
  const torch::Tensor wx = product(x, weights[at]);
  if (config.kind == "gcn") {
    const torch::Tensor y = spmm(a, wx) + biases[at];
    return last ? y : torch::relu(y);
  }
  const int64_t heads = attend_from[at].size(0), width = wx.size(1) / heads;
  const torch::Tensor split = wx.view({wx.size(0), heads, width});
  const torch::Tensor from = (split * attend_from[at]).sum(2), to = (split * attend_to[at]).sum(2);  // [n, heads]
  const torch::Tensor row = torch::repeat_interleave(a->row_begin.slice(0, 1) - a->row_begin.slice(0, 0, -1));
  const torch::Tensor scores = torch::leaky_relu(from.index_select(0, a->column) + to.index_select(0, row), 0.2);
  const torch::Tensor weight = row_softmax(a, scores);
  std::vector<torch::Tensor> outputs;
  for (int64_t head = 0; head < heads; ++head)
    outputs.push_back(spmm(a, weight.select(1, head).contiguous(), split.select(1, head).contiguous()));
  const torch::Tensor y = (heads == 1 ? outputs[0] : torch::cat(outputs, 1)) + biases[at];
  return last ? y : torch::elu(y);
}

torch::Tensor GraphNetImpl::forward(const Sparse& a, const torch::Tensor& x) {
  torch::Tensor h = x;
  for (int64_t i = 0; i < config.layers; ++i) h = layer(a, h, i);
  return h;
}

}  // namespace lighten
