-- wrk script: asks for the paths in the file ZIPF_PATHS (an environment variable), one a line,
-- spread by Zipf's law with s = 1: the path of rank k comes 1/k as often as that of rank 1. Which
-- path has which rank is shuffled. The seed is fixed, so that every run sends the same sequence.

local SEED = 42
-- Drawn once and then sent over and over; at 10,000 paths the rarest of them comes three times.
local DRAWS = 300000

local requests = {}
local at = 0

local function read_paths()
   local name = os.getenv("ZIPF_PATHS") or error("ZIPF_PATHS names no file")
   local paths = {}
   for line in assert(io.open(name)):lines() do
      if line ~= "" then
         paths[#paths + 1] = line
      end
   end
   assert(#paths > 0, name .. " has no path")
   return paths
end

local function shuffle(list)
   for i = #list, 2, -1 do
      local j = math.random(i)
      list[i], list[j] = list[j], list[i]
   end
end

-- The sum of the weights up to each rank.
local function sums(count)
   local result, sum = {}, 0
   for rank = 1, count do
      sum = sum + 1 / rank
      result[rank] = sum
   end
   return result
end

-- A rank: the first whose sum is not below a number drawn from all of them.
local function draw(upto)
   local wanted = math.random() * upto[#upto]
   local low, high = 1, #upto
   while low < high do
      local middle = math.floor((low + high) / 2)
      if upto[middle] < wanted then
         low = middle + 1
      else
         high = middle
      end
   end
   return low
end

function init()
   math.randomseed(SEED)
   local texts = read_paths()
   shuffle(texts)
   for rank, path in ipairs(texts) do
      texts[rank] = wrk.format("GET", path)
   end
   local upto = sums(#texts)
   for i = 1, DRAWS do
      requests[i] = texts[draw(upto)]
   end
end

function request()
   at = at % DRAWS + 1
   return requests[at]
end
