// A fault that the emulation found in a kernel.
#pragma once

#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace resnet_cuda {
namespace emulation {

// Thrown inside a kernel; the launch adds kernel, block and thread and turns it into a std::runtime_error.
struct Fault {
  std::string message;
};

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  ((text << parts), ...);
  throw Fault{text.str()};
}

// A line of a kernel.
struct Line {
  const char* file = "";
  int number = 0;

  bool operator==(const Line& other) const {
    return number == other.number && std::strcmp(file, other.file) == 0;
  }
};

inline std::ostream& operator<<(std::ostream& stream, const Line& line) {
  const char* slash = std::strrchr(line.file, '/');
  return stream << (slash == nullptr ? line.file : slash + 1) << ':' << line.number;
}

// "threads 0-31, 40"
inline std::string thread_ranges(const std::vector<int>& threads) {
  std::ostringstream text;
  text << (threads.size() == 1 ? "thread " : "threads ");
  for (std::size_t begin = 0, end; begin < threads.size(); begin = end) {
    for (end = begin + 1; end < threads.size() && threads[end] == threads[end - 1] + 1; ++end) {
    }
    text << (begin == 0 ? "" : ", ") << threads[begin];
    if (end - begin > 1) {
      text << '-' << threads[end - 1];
    }
  }
  return text.str();
}

}  // namespace emulation
}  // namespace resnet_cuda
