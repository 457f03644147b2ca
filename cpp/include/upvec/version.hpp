// The version of the library, for programs that include it.
#pragma once

#define UPVEC_VERSION_MAJOR 0
#define UPVEC_VERSION_MINOR 1
#define UPVEC_VERSION_PATCH 0
#define UPVEC_VERSION "0.1.0"
