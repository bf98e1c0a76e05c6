-- wrk script: sends the same GET a fixed number of times in one write, so that the server sees a
-- pipeline of that depth. Depth: the first argument after `--`, else 24.

local pipeline

function init(args)
   local depth = tonumber(args[1]) or 24
   local requests = {}
   for i = 1, depth do
      requests[i] = wrk.format("GET")
   end
   pipeline = table.concat(requests)
end

function request()
   return pipeline
end
