#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "codes.hpp"
#include "simd/distance.hpp"
#include "simd/prefetch.hpp"
#include "space.hpp"
#include "upvec/error.hpp"

namespace {

using upvec::simd::available_kernels;
using upvec::simd::DistanceKernels;
using upvec::simd::find_kernels;

struct alignas(upvec::simd::kVectorAlignBytes) Line {
  float floats[upvec::simd::kPadFloats] = {};
};

// Rows of random values, aligned and padded as the kernels ask.
class Rows {
 public:
  Rows(std::size_t rows, std::size_t dim, unsigned seed) : dim_(dim) {
    lines_per_row_ = (dim + upvec::simd::kPadFloats - 1) / upvec::simd::kPadFloats;
    lines_.resize(rows * lines_per_row_);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (std::size_t r = 0; r < rows; ++r) {
      float* row = lines_[r * lines_per_row_].floats;
      std::generate_n(row, dim, [&] { return normal(random); });
    }
  }
  [[nodiscard]] const float* operator[](std::size_t r) const {
    return lines_[r * lines_per_row_].floats;
  }
  [[nodiscard]] float* operator[](std::size_t r) { return lines_[r * lines_per_row_].floats; }
  [[nodiscard]] std::size_t padded_dim() const { return lines_per_row_ * upvec::simd::kPadFloats; }
  [[nodiscard]] std::size_t dim() const { return dim_; }

 private:
  std::size_t dim_;
  std::size_t lines_per_row_;
  std::vector<Line> lines_;
};

struct Reference {
  double l2 = 0;
  double dot = 0;
  double magnitude = 0;  // of the terms of dot: what rounding errors scale with
};

Reference reference(const float* a, const float* b, std::size_t dim) {
  Reference sums;
  for (std::size_t d = 0; d < dim; ++d) {
    const double x = static_cast<double>(a[d]);
    const double y = static_cast<double>(b[d]);
    sums.l2 += (x - y) * (x - y);
    sums.dot += x * y;
    sums.magnitude += std::abs(x * y);
  }
  return sums;
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

void check_close(float got, double want, double magnitude) {
  CHECK(std::abs(static_cast<double>(got) - want) <= 1e-6 * magnitude + 1e-12);
}

void check_kernels(const DistanceKernels& kernels, std::size_t dim) {
  constexpr std::size_t kRows = 12;
  const Rows rows(kRows, dim, static_cast<unsigned>(dim));
  const DistanceKernels& scalar = *find_kernels("scalar");
  const std::size_t padded = rows.padded_dim();
  for (std::size_t r = 1; r < kRows; ++r) {
    const Reference want = reference(rows[0], rows[r], dim);
    const float l2 = kernels.l2(rows[0], rows[r], padded);
    const float dot = kernels.dot(rows[0], rows[r], padded);
    check_close(l2, want.l2, want.l2);
    check_close(dot, want.dot, want.magnitude);
    check_close(l2, static_cast<double>(scalar.l2(rows[0], rows[r], padded)), want.l2);
    check_close(dot, static_cast<double>(scalar.dot(rows[0], rows[r], padded)), want.magnitude);
    CHECK(same_bits(l2, kernels.l2(rows[r], rows[0], padded)));
    CHECK(same_bits(dot, kernels.dot(rows[r], rows[0], padded)));
  }
  CHECK(kernels.l2(rows[0], rows[0], padded) == 0.0F);
}

void check_many(const DistanceKernels& kernels, std::size_t dim, std::size_t n) {
  const Rows rows(n + 1, dim, static_cast<unsigned>(dim + n));
  std::vector<const void*> vectors;
  for (std::size_t i = 0; i < n; ++i) {
    vectors.push_back(rows[i + 1]);
  }
  std::vector<float> l2(n + 1, -7.0F);
  std::vector<float> dot(n + 1, -7.0F);
  kernels.l2_many(rows[0], vectors.data(), n, rows.padded_dim(), l2.data());
  kernels.dot_many(rows[0], vectors.data(), n, rows.padded_dim(), dot.data());
  for (std::size_t i = 0; i < n; ++i) {
    CHECK(same_bits(l2[i], kernels.l2(rows[0], rows[i + 1], rows.padded_dim())));
    CHECK(same_bits(dot[i], kernels.dot(rows[0], rows[i + 1], rows.padded_dim())));
  }
  CHECK(l2[n] == -7.0F);
  CHECK(dot[n] == -7.0F);
}

// The same rows in bfloat16, in codes, and as the floats that these stand for.
class Rounded {
 public:
  Rounded(std::size_t rows, std::size_t dim, unsigned seed)
      : rows_(rows, dim, seed), padded_(rows_.padded_dim()) {
    const upvec::CodeSpace codes(upvec::Metric::kL2, dim, true);
    std::vector<std::uint64_t> record(codes.point_bytes() / sizeof(std::uint64_t));
    bf16_.resize(rows * padded_);
    codes_.resize(rows * padded_);
    from_bf16_ = from_codes_ = rows_;
    for (std::size_t r = 0; r < rows; ++r) {
      codes.encode(rows_[r], reinterpret_cast<std::byte*>(record.data()));
      codes.decode(record.data(), from_codes_[r]);
      std::memcpy(&codes_[r * padded_], record.data(), padded_);
      float scale;
      std::memcpy(&scale, &record.back(), sizeof scale);  // before the squared norm
      scales_.push_back(scale);
      for (std::size_t d = 0; d < padded_; ++d) {
        bf16_[r * padded_ + d] = upvec::to_bf16(rows_[r][d]);
        from_bf16_[r][d] = upvec::from_bf16(bf16_[r * padded_ + d]);
      }
      bf16_rows_.push_back(&bf16_[r * padded_]);
      code_rows_.push_back(&codes_[r * padded_]);
    }
  }
  [[nodiscard]] std::size_t padded_dim() const { return padded_; }
  [[nodiscard]] const float* floats(std::size_t r) const { return rows_[r]; }
  [[nodiscard]] const float* of_bf16(std::size_t r) const { return from_bf16_[r]; }
  [[nodiscard]] const float* of_code(std::size_t r) const { return from_codes_[r]; }
  [[nodiscard]] const std::uint16_t* bf16(std::size_t r) const { return &bf16_[r * padded_]; }
  [[nodiscard]] const std::int8_t* code(std::size_t r) const { return &codes_[r * padded_]; }
  [[nodiscard]] float scale(std::size_t r) const { return scales_[r]; }
  // Of row 1 and those after it.
  [[nodiscard]] const void* const* bf16_rows() const { return bf16_rows_.data() + 1; }
  [[nodiscard]] const void* const* code_rows() const { return code_rows_.data() + 1; }
  [[nodiscard]] const float* scales() const { return scales_.data() + 1; }

 private:
  Rows rows_;
  std::size_t padded_;
  Rows from_bf16_{0, 1, 0};
  Rows from_codes_{0, 1, 0};
  std::vector<std::uint16_t> bf16_;
  std::vector<std::int8_t> codes_;
  std::vector<float> scales_;
  std::vector<const void*> bf16_rows_;
  std::vector<const void*> code_rows_;
};

// They give the bits of the kernels for floats, which are checked above.
void check_rounded(const DistanceKernels& kernels, std::size_t dim, std::size_t n) {
  const Rounded rows(n + 1, dim, static_cast<unsigned>(dim + n));
  const std::size_t padded = rows.padded_dim();
  const auto with_end = [n] { return std::vector<float>(n + 1, -7.0F); };
  std::vector<float> l2 = with_end();
  std::vector<float> dot = with_end();
  kernels.l2_bf16_many(rows.bf16(0), rows.bf16_rows(), n, padded, l2.data());
  kernels.dot_bf16_many(rows.bf16(0), rows.bf16_rows(), n, padded, dot.data());
  for (std::size_t i = 0; i < n; ++i) {
    const float want_l2 = kernels.l2(rows.of_bf16(0), rows.of_bf16(i + 1), padded);
    const float want_dot = kernels.dot(rows.of_bf16(0), rows.of_bf16(i + 1), padded);
    CHECK(same_bits(kernels.l2_bf16(rows.bf16(0), rows.bf16(i + 1), padded), want_l2));
    CHECK(same_bits(kernels.dot_bf16(rows.bf16(0), rows.bf16(i + 1), padded), want_dot));
    CHECK(same_bits(l2[i], want_l2));
    CHECK(same_bits(dot[i], want_dot));
  }
  kernels.l2_to_bf16_many(rows.floats(0), rows.bf16_rows(), n, padded, l2.data());
  kernels.dot_to_bf16_many(rows.floats(0), rows.bf16_rows(), n, padded, dot.data());
  for (std::size_t i = 0; i < n; ++i) {
    const float want_l2 = kernels.l2(rows.floats(0), rows.of_bf16(i + 1), padded);
    const float want_dot = kernels.dot(rows.floats(0), rows.of_bf16(i + 1), padded);
    CHECK(same_bits(kernels.l2_to_bf16(rows.floats(0), rows.bf16(i + 1), padded), want_l2));
    CHECK(same_bits(kernels.dot_to_bf16(rows.floats(0), rows.bf16(i + 1), padded), want_dot));
    CHECK(same_bits(l2[i], want_l2));
    CHECK(same_bits(dot[i], want_dot));
  }
  kernels.l2_to_code_many(rows.floats(0), rows.code_rows(), rows.scales(), n, padded, l2.data());
  kernels.dot_to_code_many(rows.floats(0), rows.code_rows(), rows.scales(), n, padded, dot.data());
  for (std::size_t i = 0; i < n; ++i) {
    const std::int8_t* const code = rows.code(i + 1);
    const float scale = rows.scale(i + 1);
    const float want_l2 = kernels.l2(rows.floats(0), rows.of_code(i + 1), padded);
    const float want_dot = kernels.dot(rows.floats(0), rows.of_code(i + 1), padded);
    CHECK(same_bits(kernels.l2_to_code(rows.floats(0), code, scale, padded), want_l2));
    CHECK(same_bits(kernels.dot_to_code(rows.floats(0), code, scale, padded), want_dot));
    CHECK(same_bits(l2[i], want_l2));
    CHECK(same_bits(dot[i], want_dot));
  }
  CHECK(l2[n] == -7.0F);
  CHECK(dot[n] == -7.0F);
}

}  // namespace

TEST_CASE("every kernel agrees with a float64 reference and with scalar") {
  for (const std::string_view name : available_kernels()) {
    CAPTURE(std::string(name));
    for (std::size_t dim = 16; dim <= 1024; dim += 16) {
      CAPTURE(dim);
      check_kernels(*find_kernels(name), dim);
    }
  }
}

TEST_CASE("padding with zeros does not count") {
  for (const std::string_view name : available_kernels()) {
    CAPTURE(std::string(name));
    for (const std::size_t dim : {1U, 3U, 15U, 17U, 100U, 385U}) {
      CAPTURE(dim);
      check_kernels(*find_kernels(name), dim);
    }
  }
}

TEST_CASE("the form for many vectors gives the bits of the single form") {
  for (const std::string_view name : available_kernels()) {
    CAPTURE(std::string(name));
    for (std::size_t dim = 16; dim <= 256; dim += 16) {
      for (std::size_t n = 0; n <= 9; ++n) {
        check_many(*find_kernels(name), dim, n);
      }
    }
    check_many(*find_kernels(name), 384, 33);
    check_many(*find_kernels(name), 1024, 33);
  }
}

TEST_CASE("measuring bfloat16 and codes gives the bits of measuring the floats they stand for") {
  for (const std::string_view name : available_kernels()) {
    CAPTURE(std::string(name));
    for (std::size_t dim = 16; dim <= 256; dim += 16) {
      for (std::size_t n = 0; n <= 9; ++n) {
        check_rounded(*find_kernels(name), dim, n);
      }
    }
    for (const std::size_t dim : {1U, 3U, 15U, 17U, 100U, 385U, 1024U}) {
      CAPTURE(dim);
      check_rounded(*find_kernels(name), dim, 5);
    }
  }
}

TEST_CASE("scalar can always run and the fastest table is the default") {
  const std::vector<std::string_view> names = available_kernels();
  REQUIRE(!names.empty());
  CHECK(names.front() == "scalar");
  CHECK(upvec::simd::choose_kernels(nullptr).name == names.back());
  CHECK(upvec::simd::choose_kernels("").name == names.back());
  CHECK(std::count(names.begin(), names.end(), upvec::simd::kernels().name) == 1);
  CHECK(&upvec::simd::kernels() == &upvec::simd::kernels());
}

TEST_CASE("an override picks the table of that name") {
  for (const std::string_view name : available_kernels()) {
    CHECK(upvec::simd::choose_kernels(std::string(name).c_str()).name == name);
  }
}

TEST_CASE("an override that cannot be met names what is available") {
  CHECK(find_kernels("altivec") == nullptr);
#if defined(__x86_64__)
  const char* const wanted = "neon";
#else
  const char* const wanted = "avx2";
#endif
  try {
    static_cast<void>(upvec::simd::choose_kernels(wanted));
    FAIL("no error");
  } catch (const upvec::Error& error) {
    CHECK(error.code() == upvec::ErrorCode::kInvalidArgument);
    const std::string message = error.what();
    CHECK(message.find(wanted) != std::string::npos);
    for (const std::string_view name : available_kernels()) {
      CHECK(message.find(name) != std::string::npos);
    }
  }
}

TEST_CASE("prefetching any address is harmless") {
  upvec::simd::prefetch(nullptr);
  const Rows rows(2, 100, 1);
  upvec::simd::prefetch_lines(rows[0], 2 * rows.padded_dim() * sizeof(float));
  upvec::simd::prefetch_lines(rows[0], 0);
}
