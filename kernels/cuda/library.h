// A shared library that is loaded when it is first needed, so that programs start without it.
#pragma once

#include <cstdio>
#include <initializer_list>
#include <string>

namespace trireme::cuda {

inline constexpr std::initializer_list<const char*> kCublasLt{"libcublasLt.so.13", "libcublasLt.so.12"};

/// For what must not throw: a failure to give something back spoils no result, but is said.
inline void report_failure(bool failed, const char* what) noexcept {
  if (failed) std::fprintf(stderr, "%s failed\n", what);
}

class Library {
 public:
  /// Loads the first of `names` that is found. Throws Error(kUsage) that names all of them and `package`.
  Library(std::initializer_list<const char*> names, const char* package);
  /// The function `name` of type F. Throws Error(kUsage) if the library has none of that name.
  template <class F>
  F* function(const char* name) const {
    return reinterpret_cast<F*>(find(name));
  }
  /// Returns the handle that dlopen() returned.
  void* handle() const { return handle_; }

 private:
  void* find(const char* name) const;
  void* handle_ = nullptr;  ///< never unloaded
  std::string name_;
};

}  // namespace trireme::cuda
